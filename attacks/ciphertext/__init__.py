"""Attacks on ciphertexts: what clients and servers learn beside the answers."""
