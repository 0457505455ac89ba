"""The controlled training loop."""
