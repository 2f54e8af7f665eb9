"""Estimates and their intervals: pure arrays in, numbers out."""
