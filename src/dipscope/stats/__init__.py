"""Arrays in, numbers out; knows no study."""
