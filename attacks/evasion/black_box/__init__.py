"""Evasion by asking, and by transfer from stolen models."""
