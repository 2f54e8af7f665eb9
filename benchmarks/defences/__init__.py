"""Serving defences: what they cost and what an adversary who knows them still learns."""
