"""Running programs that nobody vouches for: `run.py` is the door."""
