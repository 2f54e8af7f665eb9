"""The paired measurement: every attack on every twin, resumable."""
