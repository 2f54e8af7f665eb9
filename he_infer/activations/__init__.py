"""Polynomial activations: layers, approximation, and the conversion of a trained network."""
