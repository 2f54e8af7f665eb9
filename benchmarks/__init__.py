"""Measurements: every figure in the docs is a record that ``python -m benchmarks`` wrote."""
