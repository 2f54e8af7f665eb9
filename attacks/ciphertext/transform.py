"""The number-theoretic transform in SEAL's order, in numpy: for primes of at most 60 bits.

Place i holds the value at ψ^(2·rev(i) + 1), ψ the smallest primitive 2n-th root of unity.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Residues = NDArray[np.uint64]


def multiply(a: Residues, b: Residues, q: int) -> Residues:
    """a · b mod q elementwise, for q < 2^60: the quotient is guessed in floating point.

    Products wrap around 2^64; what is left after subtracting quotient · q is small and exact.
    """
    modulus = np.uint64(q)
    # Beyond 50 bits the guess needs the 64 bits of an extended double.
    kind = np.float64 if q < 1 << 50 else np.longdouble
    guess = (a.astype(kind) * b.astype(kind) / modulus.astype(kind)).astype(np.uint64)
    with np.errstate(over="ignore"):
        rest = (a * b - guess * modulus).astype(np.int64)
    rest = np.where(rest < 0, rest + q, rest)
    return np.asarray(np.where(rest >= q, rest - q, rest), dtype=np.uint64)


def inverse(a: Residues, q: int) -> Residues:
    """1 / a mod q elementwise for prime q; 0 stays 0."""
    result, base, exponent = np.ones_like(a), a.copy(), q - 2
    while exponent:
        if exponent & 1:
            result = multiply(result, base, q)
        base = multiply(base, base, q)
        exponent >>= 1
    return result


def forward(coefficients: Residues, q: int) -> Residues:
    """Coefficients (n,) → values (n,)."""
    n = len(coefficients)
    roots, _ = _roots(n, q)
    a, blocks, half = coefficients.copy(), 1, n
    while blocks < n:
        half //= 2
        pairs = a.reshape(blocks, 2, half)
        factors = np.repeat(roots[blocks : 2 * blocks, None], half, axis=1)
        upper, lower = pairs[:, 0].copy(), multiply(pairs[:, 1], factors, q)
        pairs[:, 0], pairs[:, 1] = _add(upper, lower, q), subtract(upper, lower, q)
        blocks *= 2
    return a


def backward(values: Residues, q: int) -> Residues:
    """Values (n,) → coefficients (n,)."""
    n = len(values)
    _, roots = _roots(n, q)
    a, blocks, half = values.copy(), n // 2, 1
    while blocks:
        pairs = a.reshape(blocks, 2, half)
        factors = np.repeat(roots[blocks : 2 * blocks, None], half, axis=1)
        upper, lower = pairs[:, 0].copy(), pairs[:, 1].copy()
        pairs[:, 0] = _add(upper, lower, q)
        pairs[:, 1] = multiply(subtract(upper, lower, q), factors, q)
        blocks //= 2
        half *= 2
    return multiply(a, np.full(n, pow(n, -1, q), dtype=np.uint64), q)


@lru_cache(maxsize=8)
def _roots(n: int, q: int) -> tuple[Residues, Residues]:
    """Powers of ψ and of 1/ψ in bit-reversed order."""
    psi = _smallest_root(n, q)
    bits = n.bit_length() - 1
    order = [int(format(i, f"0{bits}b")[::-1], 2) for i in range(n)]
    powers = []
    for base in (psi, pow(psi, -1, q)):
        row = [1]
        for _ in range(n - 1):
            row.append(row[-1] * base % q)
        powers.append(np.array([row[i] for i in order], dtype=np.uint64))
    return powers[0], powers[1]


def _smallest_root(n: int, q: int) -> int:
    base = 2
    while pow(root := pow(base, (q - 1) // (2 * n), q), n, q) != q - 1:
        base += 1
    step, best, power = root * root % q, root, root
    for _ in range(n):
        power = power * step % q
        best = min(best, power)
    return best


def _add(a: Residues, b: Residues, q: int) -> Residues:
    total = a + b
    return np.where(total >= q, total - np.uint64(q), total)


def subtract(a: Residues, b: Residues, q: int) -> Residues:
    return np.where(a >= b, a - b, a + np.uint64(q) - b)
