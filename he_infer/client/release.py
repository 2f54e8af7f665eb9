"""Making a decrypted answer fit to be shown to others.

A decryption carries the noise of its ciphertext, and who has both can solve for the secret key
(Li and Micciancio, ePrint 2020/1533). Before an answer leaves the key's holder, noise of its own
is added to it and it is rounded. Rounding alone stops the exact solution, no more: what is left
are equations with bounded errors. Flooding sized for a proof (Li et al., ePrint 2022/816) would
take sqrt(12·answers)·2^64 times the noise, more than these parameters hold; so give away few
answers, coarse ones, or labels only.
"""

from __future__ import annotations

import secrets
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from he_infer.errors import InputError

DEFAULT_BITS: Final = 8
_GRID_BITS: Final = 40  # of the noise, which is uniform on this grid


def release(logits: ArrayLike, *, bits: int = DEFAULT_BITS) -> NDArray[np.float64]:
    """The values with fresh noise, uniform on ±2^−bits, rounded to multiples of 2^−bits.

    Any shape. Drawn from the operating system's generator. Raises InputError for ``bits``
    outside 0 … 20 or values that are not finite.
    """
    values = np.asarray(logits, dtype=np.float64)
    if not 0 <= bits <= 20:
        raise InputError(f"bits must lie in 0 … 20, got {bits}")
    if not np.isfinite(values).all():
        raise InputError("the values are not all finite")
    drawn = [secrets.randbelow(2 << _GRID_BITS) for _ in range(values.size)]
    noise = np.array(drawn, dtype=np.float64).reshape(values.shape) / (1 << _GRID_BITS) - 1.0
    step = 2.0**-bits
    return np.asarray(np.rint((values + noise * step) / step) * step)
