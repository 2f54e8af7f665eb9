"""Targets: plaintext models, the simulated and the live service; adapters to other suites."""
