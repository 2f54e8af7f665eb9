"""Key recovery from decryptions (Li and Micciancio, ePrint 2020/1533).

An approximate scheme decrypts to m' = c0 + c1·s, noise included. Who sees the decrypted slots
encodes them again, gets m' exactly by rounding, and solves for s, one equation in each place of
the transform. Real parts alone say m' + conj(m'), one equation for two unknowns, s and its
conjugate at the mirrored place: two decryptions are enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attacks.ciphertext.transform import Residues, backward, forward, inverse, multiply, subtract
from attacks.core.arrays import Complexes


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A ciphertext (n,) + (n,) modulo ``q`` in SEAL's order, and its decrypted slots (n/2,)."""

    c0: Residues
    c1: Residues
    slots: Complexes
    scale: float
    q: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """``coefficients`` (n,) found for the key, centred; ``ternary``: share in {−1, 0, 1}.

    A wrong key looks uniform modulo q, so a share of one is proof.
    """

    coefficients: NDArray[np.int64]
    ternary: float

    @property
    def is_key(self) -> bool:
        return self.ternary == 1.0


def from_complex(seen: Seen) -> Recovered:
    """The secret key from one decryption seen in full."""
    q = seen.q
    message = forward(_encode(seen.slots, seen.scale, q), q)
    difference = subtract(message, seen.c0, q)
    return _judged(multiply(difference, inverse(seen.c1, q), q), q)


def from_real(pair: Sequence[Seen]) -> Recovered:
    """The secret key from the real parts of two decryptions under one modulus."""
    q = pair[0].q
    sides, factors = [], []
    for seen in pair:
        doubled = forward(_encode(2 * seen.slots.real.astype(np.complex128), seen.scale, q), q)
        sides.append(subtract(subtract(doubled, seen.c0, q), seen.c0[::-1], q))
        factors.append((seen.c1, seen.c1[::-1]))
    (a, b), (c, d) = factors
    # [a b; c d] (s, mirrored s) = sides: Cramer's rule in every place.
    determinant = subtract(multiply(a, d, q), multiply(b, c, q), q)
    upper = subtract(multiply(sides[0], d, q), multiply(b, sides[1], q), q)
    return _judged(multiply(upper, inverse(determinant, q), q), q)


def _judged(values: Residues, q: int) -> Recovered:
    found = backward(values, q).astype(np.int64)
    centred = np.where(found > q // 2, found - q, found)
    return Recovered(coefficients=centred, ternary=float((np.abs(centred) <= 1).mean()))


def _encode(slots: Complexes, scale: float, q: int) -> Residues:
    """Slots (n/2,) → coefficients (n,) mod q, rounded; slot j is the value at ζ^(3^j)."""
    n = 2 * len(slots)
    places, exponent = np.empty(n // 2, dtype=np.int64), 1
    for slot in range(n // 2):
        places[slot] = (exponent - 1) // 2
        exponent = exponent * 3 % (2 * n)
    spectrum = np.empty(n, dtype=np.complex128)
    spectrum[places], spectrum[n - 1 - places] = slots, np.conj(slots)
    twist = np.exp(-1j * np.pi * np.arange(n) / n) / n
    coefficients = np.rint((np.fft.fft(spectrum) * twist).real * scale)
    return np.asarray(np.mod(coefficients, q), dtype=np.uint64)
