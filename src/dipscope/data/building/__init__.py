"""From a pool of responses to matched variants."""
