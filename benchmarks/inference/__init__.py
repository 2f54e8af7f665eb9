"""Encrypted inference: latency, throughput, accuracy, primitives."""
