"""Framed, versioned, size-limited bytes: the only parser of bytes that come from outside."""

from __future__ import annotations

from he_infer.wire.types import (
    Ciphertext,
    SeededCiphertext,
    SeededKeySwitchKey,
    SeededPublicKey,
)

__all__ = [
    "Ciphertext",
    "SeededCiphertext",
    "SeededKeySwitchKey",
    "SeededPublicKey",
]
