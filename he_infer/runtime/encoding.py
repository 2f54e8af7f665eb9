"""CKKS encoding: slot values to the integer coefficients of a plaintext polynomial.

Slot j of N/2 is the value at ζ^(3^j), ζ = exp(iπ/N); the other roots are the conjugates. The
polynomial with given values is an inverse Fourier transform of length N, twisted by ζ.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from he_infer.errors import BackendError
from he_infer.plan.ir import FloatArray

MAX_COEFFICIENT_BITS: Final = 62  # what a signed word holds, with room for its reduction


def encode_slots(values: FloatArray | float, n: int, scale: float) -> NDArray[np.int64]:
    """The coefficients (n,) of (n/2,) slot values, or of one value for all slots.

    Raises BackendError if a coefficient exceeds 62 bits or a value is not finite.
    """
    if not np.isfinite(values).all():
        raise BackendError("cannot encode: a value is not finite")
    if isinstance(values, float):
        coefficients = np.zeros(n)
        coefficients[0] = values * scale
    else:
        places = slot_indices(n)
        spectrum = np.empty(n, dtype=np.complex128)
        spectrum[places] = values
        spectrum[n - 1 - places] = np.conj(values)
        coefficients = (np.fft.fft(spectrum) * _twist(n)).real * scale
    if not np.abs(coefficients).max() < 2.0**MAX_COEFFICIENT_BITS:
        raise BackendError("cannot encode: value times scale exceeds 62 bits")
    return np.rint(coefficients).astype(np.int64)


@lru_cache(maxsize=8)
def slot_indices(n: int) -> NDArray[np.int64]:
    """k such that slot j is the value at ζ^(2k + 1): 2k + 1 = 3^j mod 2n."""
    exponents = np.empty(n // 2, dtype=np.int64)
    exponent = 1
    for slot in range(n // 2):
        exponents[slot] = exponent
        exponent = exponent * 3 % (2 * n)
    return (exponents - 1) // 2


@lru_cache(maxsize=8)
def _twist(n: int) -> NDArray[np.complex128]:
    """ζ^−i / n."""
    return np.asarray(np.exp(-1j * np.pi * np.arange(n) / n) / n)


def embed(coefficients: NDArray[np.int64], n: int) -> NDArray[np.complex128]:
    """The values (n/2,) at the slots of a polynomial with coefficients (n,), complex."""
    values = np.fft.ifft(coefficients * np.conj(_twist(n)) * n) * n
    return np.asarray(values[slot_indices(n)])
