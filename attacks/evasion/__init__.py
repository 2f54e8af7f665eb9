"""Evasion: inputs moved a little so that the model labels them wrongly."""
