"""Traces: made, transformed, tokenized."""
