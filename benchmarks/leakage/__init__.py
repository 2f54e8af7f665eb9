"""Leakage: published figures beside ours, and paired twins."""
