"""Randomness of public-key encryption: small polynomials.

Every draw has 256 bits of the operating system's for its key, which AES-256 in counter mode
makes as long as it takes: ten times faster than asking the operating system for all of it.
"""

from __future__ import annotations

import os
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

# Twice 8 + 8 + 5 bits of six bytes.
_TAKEN: Final = np.array([0xFF, 0xFF, 0x1F, 0xFF, 0xFF, 0x1F], dtype=np.uint8)


def random_bytes(count: int) -> bytes:
    """``count`` pseudorandom bytes, from a fresh key that is used once."""
    stream = Cipher(algorithms.AES256(os.urandom(32)), modes.CTR(bytes(16))).encryptor()
    return stream.update(bytes(count))


def ternary(n: int) -> NDArray[np.int8]:
    """(n,) values −1, 0, 1, uniform."""
    found = np.empty(0, dtype=np.uint8)
    while len(found) < n:
        drawn = np.frombuffer(random_bytes(n + n // 64 + 16), dtype=np.uint8)
        found = np.concatenate([found, drawn[drawn < 255]])  # 255 = 3 · 85: no value is favoured
    return (found[:n] % 3).astype(np.int8) - np.int8(1)


def centred_binomial(n: int) -> NDArray[np.int8]:
    """(n,) differences of two sums of 21 bits, variance 10.5: the error that SEAL draws."""
    drawn = np.frombuffer(random_bytes(6 * n), dtype=np.uint8).reshape(6, n)
    bits = np.bitwise_count(drawn & _TAKEN[:, None]).astype(np.int8)
    return np.asarray(bits[:3].sum(axis=0, dtype=np.int8) - bits[3:].sum(axis=0, dtype=np.int8))


def uniform(n: int, bound: int, *, stride: int = 1) -> NDArray[np.int64]:
    """(n,) integers: every ``stride``-th uniform on [−bound, bound), the others zero.

    ``bound`` is at most 2^62; for one that is no power of two, chances differ by 2·bound / 2^64.
    """
    drawn = np.frombuffer(random_bytes(8 * (n // stride)), dtype=np.uint64)
    found = np.zeros(n, dtype=np.int64)
    found[::stride] = (drawn % np.uint64(2 * bound)).astype(np.int64) - np.int64(bound)
    return found


def unit(count: int) -> NDArray[np.float64]:
    """(count,) numbers, uniform on the multiples of 2^−53 in [0, 1)."""
    drawn = np.frombuffer(random_bytes(8 * count), dtype=np.uint64)
    return np.asarray((drawn >> np.uint64(11)) * 2.0**-53, dtype=np.float64)
