"""Attacks that add records to a training set, and certified defences against them."""
