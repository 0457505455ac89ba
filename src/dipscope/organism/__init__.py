"""The embedded default: a generated world and tiny base models."""
