"""Certified defences for data poisoning, and the attack that nearly meets the certificate."""
