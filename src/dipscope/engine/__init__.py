"""The parts that run a model."""
