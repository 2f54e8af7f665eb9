"""Interpreters of the kernels, all over one protocol."""
