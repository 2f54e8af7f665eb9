"""Evasion beside published figures and other packages."""
