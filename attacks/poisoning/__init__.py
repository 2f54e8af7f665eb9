"""Attacks that add records to a training set, and what certifies a defence against them."""
