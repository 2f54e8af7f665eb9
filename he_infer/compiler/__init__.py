"""A graph becomes a plan."""
