"""Attacks that steal a model through its answers."""
