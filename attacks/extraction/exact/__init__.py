"""Exact extraction of networks whose activations are polynomials."""
