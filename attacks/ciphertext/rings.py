"""Arithmetic modulo one prime and its negacyclic transform, in the order that SEAL uses.

The transform of a(X) mod X^n + 1 holds at place i the value a(ψ^(2·brv(i) + 1)), brv the
reversal of log2 n bits and ψ the smallest primitive 2n-th root of unity modulo q. The
automorphism X → X^−1 maps place i to n − 1 − i.
Sources: microsoft/SEAL 4.1, util/ntt.cpp; Longa and Naehrig, ePrint 2016/504.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attacks.errors import AttackError

Words = NDArray[np.uint64]
_FAST_BITS: Final = 50  # below, a quotient in double precision is off by one at most
_MOST_BITS: Final = 61
_LIMB: Final = 30


def multiply(a: Words, b: Words, q: int) -> Words:
    """a · b mod q for residues below q < 2^61, of shapes that broadcast."""
    if q.bit_length() <= _FAST_BITS:
        return _multiply_short(a, b, q)
    high = _multiply_short(a, b >> np.uint64(_LIMB), q)
    low = _multiply_short(a, b & np.uint64((1 << _LIMB) - 1), q)
    return add(_multiply_short(high, np.array(1 << _LIMB, dtype=np.uint64), q), low, q)


def add(a: Words, b: Words, q: int) -> Words:
    """a + b mod q."""
    total = a + b
    result: Words = np.where(total >= q, total - np.uint64(q), total)
    return result


def subtract(a: Words, b: Words, q: int) -> Words:
    """a − b mod q."""
    result: Words = np.where(a >= b, a - b, a + np.uint64(q) - b)
    return result


def invert(a: Words, q: int) -> Words:
    """a^−1 mod the prime q by Fermat's little theorem; 0 for 0."""
    result = np.ones_like(a)
    for bit in bin(q - 2)[2:]:
        result = multiply(result, result, q)
        if bit == "1":
            result = multiply(result, a, q)
    return result


def residues(values: NDArray[Any], q: int) -> Words:
    """Signed integers, given exactly as int64 or as whole float64 below 2^63, mod q."""
    whole = np.asarray(values).astype(np.int64)
    return (whole % np.int64(q)).astype(np.uint64)


def centred(values: Words, q: int) -> NDArray[np.int64]:
    """Residues as integers in (−q/2, q/2)."""
    result: NDArray[np.int64] = np.where(
        values > q // 2, values.astype(np.int64) - q, values.astype(np.int64)
    )
    return result


@dataclass(frozen=True, slots=True, eq=False)
class Ring:
    """Z_q[X] / (X^n + 1); ``of`` checks that n is a power of two and q a prime ≡ 1 mod 2n."""

    n: int
    q: int
    _powers: Words  # ψ^brv(i)
    _inverse_powers: Words
    _inverse_n: Words

    @staticmethod
    @lru_cache(maxsize=8)
    def of(n: int, q: int) -> Ring:
        if n < 2 or n & (n - 1) or q % (2 * n) != 1 or q.bit_length() > _MOST_BITS:
            raise AttackError(f"no transform of length {n} modulo {q}")
        psi = _smallest_root(n, q)
        return Ring(
            n,
            q,
            _powers(psi, n, q)[_reversal(n)],
            _powers(pow(psi, -1, q), n, q)[_reversal(n)],
            np.array(pow(n, -1, q), dtype=np.uint64),
        )

    def forward(self, coefficients: Words) -> Words:
        """Coefficients (n,) below q to values (n,)."""
        values = coefficients.astype(np.uint64)
        blocks = 1
        while blocks < self.n:
            pairs = values.reshape(blocks, 2, -1)
            left = pairs[:, 0]
            right = multiply(pairs[:, 1], self._powers[blocks : 2 * blocks, None], self.q)
            both = [add(left, right, self.q), subtract(left, right, self.q)]
            values = np.stack(both, axis=1)
            blocks *= 2
        return values.reshape(self.n)

    def inverse(self, values: Words) -> Words:
        """Values (n,) below q to coefficients (n,)."""
        found = values.astype(np.uint64)
        blocks = self.n // 2
        while blocks >= 1:
            pairs = found.reshape(blocks, 2, -1)
            left, right = pairs[:, 0], pairs[:, 1]
            gap = subtract(left, right, self.q)
            back = multiply(gap, self._inverse_powers[blocks : 2 * blocks, None], self.q)
            found = np.stack([add(left, right, self.q), back], axis=1)
            blocks //= 2
        return multiply(found.reshape(self.n), self._inverse_n, self.q)


def _multiply_short(a: Words, b: Words, q: int) -> Words:
    """Exact where a · b / q < 2^50: then the quotient in double precision is off by one at most.

    The products wrap modulo 2^64; their difference is small, so it survives.
    """
    quotient = (a.astype(np.float64) * b.astype(np.float64) / q).astype(np.uint64)
    rest = (a * b - quotient * np.uint64(q)).astype(np.int64)
    rest = np.where(rest < 0, rest + q, rest)
    result: Words = np.where(rest >= q, rest - q, rest).astype(np.uint64)
    return result


def _smallest_root(n: int, q: int) -> int:
    """The smallest ψ with ψ^n = −1 mod q: SEAL takes no other."""
    for base in range(2, 10_000):
        root = pow(base, (q - 1) // (2 * n), q)
        if pow(root, n, q) == q - 1:
            break
    else:
        raise AttackError(f"{q} is not a prime")
    square = root * root % q
    smallest = root
    for _ in range(n - 1):
        root = root * square % q
        smallest = min(smallest, root)
    return smallest


def _powers(base: int, count: int, q: int) -> Words:
    found = [1]
    for _ in range(count - 1):
        found.append(found[-1] * base % q)
    return np.array(found, dtype=np.uint64)


def _reversal(n: int) -> NDArray[np.int64]:
    bits = n.bit_length() - 1
    return np.array([int(f"{i:0{bits}b}"[::-1], 2) for i in range(n)], dtype=np.int64)
