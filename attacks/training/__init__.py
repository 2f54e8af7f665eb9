"""Trains many small models at once: shadow models, and the twins that are compared."""
