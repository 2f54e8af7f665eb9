"""Evasion with the model's gradients."""
