"""Trains many small models at once: shadows, and the twins that are compared."""
