"""Randomness of public-key encryption, from the operating system: small polynomials."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

_ONES = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.int8)


def ternary(n: int) -> NDArray[np.int8]:
    """(n,) values −1, 0, 1, uniform."""
    found = np.empty(0, dtype=np.uint8)
    while len(found) < n:
        drawn = np.frombuffer(os.urandom(n + n // 64 + 16), dtype=np.uint8)
        found = np.concatenate([found, drawn[drawn < 255]])  # 255 = 3 · 85: no value is favoured
    return (found[:n] % 3).astype(np.int8) - np.int8(1)


def centred_binomial(n: int) -> NDArray[np.int8]:
    """(n,) differences of two sums of 21 bits, variance 10.5: the error that SEAL draws."""
    drawn = np.frombuffer(os.urandom(6 * n), dtype=np.uint8).reshape(6, n)
    positive = _ONES[drawn[0]] + _ONES[drawn[1]] + _ONES[drawn[2] & 0x1F]
    negative = _ONES[drawn[3]] + _ONES[drawn[4]] + _ONES[drawn[5] & 0x1F]
    return np.asarray(positive - negative, dtype=np.int8)


def uniform(n: int, bits: int) -> NDArray[np.int64]:
    """(n,) integers, uniform on [−2^bits, 2^bits); at most 62 bits."""
    drawn = np.frombuffer(os.urandom(8 * n), dtype=np.uint64)
    kept = (drawn >> np.uint64(63 - bits)).astype(np.int64)  # bits + 1 of the 64
    return np.asarray(kept - (np.int64(1) << np.int64(bits)), dtype=np.int64)
