"""A teacher writes traces."""
