"""A model becomes a graph."""
