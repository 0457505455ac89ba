"""From a response to what is scored."""
