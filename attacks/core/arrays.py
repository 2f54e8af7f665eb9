"""Names for the types of arrays that attacks take and give."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
Ints = NDArray[np.int64]  # labels from 0, or indices
Bools = NDArray[np.bool_]
