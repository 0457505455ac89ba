"""From records to curves, shapes, decomposition and findings."""
