"""Checkpoints and logs of other tools."""
