"""Poisoning beside published figures."""
