"""The audit document, ``audit.json``: its types, and how they become JSON and back."""
