"""The page and the terminal view of an analysis."""
