"""Extraction beside published figures."""
