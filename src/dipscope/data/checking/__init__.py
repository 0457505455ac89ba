"""What a table holds, and whether benchmarks stand in it."""
