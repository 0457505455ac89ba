"""Variants of traces on matched queries."""
