"""The secret key from decryptions that were shared: Li and Micciancio, ePrint 2020/1533.

A CKKS decryption is m = c0 + c1 · s exactly, error included, and decoding loses nothing that
encoding does not restore. So whoever holds the ciphertext and its decrypted slots solves a
linear equation for s: one per place of the transform, modulo one prime. With real parts only,
m + σ(m) is known, σ: X → X^−1, which takes two ciphertexts and a 2×2 system in s and σ(s).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attacks.ciphertext.channel import Complex, Floats
from attacks.ciphertext.rings import (
    Ring,
    Words,
    add,
    centred,
    invert,
    multiply,
    residues,
    subtract,
)
from attacks.errors import AttackError, BadAnswerError

_LARGEST: Final = 2.0**62  # of a coefficient: beyond, the scale or the slots are wrong


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recovered:
    """``secret``: ternary coefficients (n,), or None if the solution is no ternary polynomial.

    ``agreement``: the share of solved coefficients in {−1, 0, 1}; about 3/q for a wrong one.
    """

    secret: NDArray[np.int8] | None
    agreement: float


def recover_from_complex(
    c0: Words, c1: Words, decoded: Complex, *, scale: float, q: int, n: int
) -> Recovered:
    """s = (m − c0) / c1 from one ciphertext and all of its decryption.

    ``c0``, ``c1``: residues (n,) mod q, transformed as SEAL does. ``decoded``: (n/2,) slots.
    """
    ring = Ring.of(n, q)
    _check(c0, c1, decoded, n)
    message = ring.forward(residues(coefficients_of(decoded, scale), q))
    secret = multiply(subtract(message, c0, q), invert(c1, q), q)
    return _judge(ring, secret)


def recover_from_real(
    pairs: Sequence[tuple[Words, Words, Floats]], *, scale: float, q: int, n: int
) -> Recovered:
    """The same from (c0, c1, real parts of the slots (n/2,)) of two ciphertexts.

    Place i and its mirror n − 1 − i give the same equation in the two unknowns s_i and
    s_(n−1−i), so each ciphertext adds one; more than two are not needed. Raises AttackError
    below two.
    """
    if len(pairs) < 2:
        raise AttackError(f"real parts need two ciphertexts under one key, got {len(pairs)}")
    ring = Ring.of(n, q)
    rows = []
    for c0, c1, decoded in pairs[:2]:
        _check(c0, c1, decoded, n)
        doubled = coefficients_of(2 * decoded.astype(np.complex128), scale)
        message = ring.forward(residues(doubled, q))
        rows.append((c1, c1[::-1], subtract(message, add(c0, c0[::-1], q), q)))
    (a, b, e), (c, d, f) = rows
    determinant = subtract(multiply(a, d, q), multiply(b, c, q), q)
    numerator = subtract(multiply(e, d, q), multiply(b, f, q), q)
    return _judge(ring, multiply(numerator, invert(determinant, q), q))


def coefficients_of(decoded: Complex, scale: float) -> Floats:
    """The whole coefficients (n,) whose slots, over ``scale``, are ``decoded`` (n/2,).

    Slot j is the value at ζ^(3^j), ζ = exp(iπ/n); the other roots are the conjugates. Raises
    BadAnswerError for slots that no plaintext below 2^62 has.
    """
    n = 2 * len(decoded)
    places, twist = _tables(n)
    spectrum = np.empty(n, dtype=np.complex128)
    spectrum[places] = decoded
    spectrum[n - 1 - places] = np.conj(decoded)
    found: Floats = np.rint((np.fft.fft(spectrum) * twist).real * scale)
    if not np.abs(found).max() < _LARGEST:
        raise BadAnswerError("decrypted slots times the scale exceed 62 bits")
    return found


def slots_of(coefficients: NDArray[Any]) -> Complex:
    """The values (n/2,) of a polynomial with coefficients (n,) at the slots' roots."""
    n = len(coefficients)
    places, twist = _tables(n)
    values: Complex = np.fft.ifft(coefficients * np.conj(twist) * n) * n
    return values[places]


@lru_cache(maxsize=8)
def _tables(n: int) -> tuple[NDArray[np.int64], Complex]:
    """Each slot's place k among the roots ζ^(2k + 1), and ζ^−i / n."""
    exponents = np.array([pow(3, slot, 2 * n) for slot in range(n // 2)], dtype=np.int64)
    twist: Complex = np.exp(-1j * np.pi * np.arange(n) / n) / n
    return (exponents - 1) // 2, twist


def _check(c0: Words, c1: Words, decoded: NDArray[Any], n: int) -> None:
    if c0.shape != (n,) or c1.shape != (n,) or decoded.shape != (n // 2,):
        raise AttackError(
            f"expected residues of shape ({n},) and ({n // 2},) slots, "
            f"got {c0.shape}, {c1.shape} and {decoded.shape}"
        )


def _judge(ring: Ring, transformed: Words) -> Recovered:
    coefficients = centred(ring.inverse(transformed), ring.q)
    ternary = np.abs(coefficients) <= 1
    return Recovered(
        secret=coefficients.astype(np.int8) if ternary.all() else None,
        agreement=float(ternary.mean()),
    )
