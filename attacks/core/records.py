"""Records with labels, as every attack takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attacks.core.arrays import Floats
from attacks.errors import DataSplitError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Records:
    """``inputs`` (B, *shape) float64, finite; ``labels`` (B,) int64 from 0.

    Raises DataSplitError if they do not fit together.
    """

    inputs: Floats
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.inputs.dtype != np.float64 or self.labels.dtype != np.int64:
            raise DataSplitError(
                f"records are float64 with int64 labels, got {self.inputs.dtype} and "
                f"{self.labels.dtype}"
            )
        if self.inputs.ndim < 2 or self.labels.shape != self.inputs.shape[:1]:
            raise DataSplitError(
                f"inputs of shape {self.inputs.shape} do not fit labels of shape "
                f"{self.labels.shape}"
            )
        if not np.isfinite(self.inputs).all():
            raise DataSplitError("a record holds a value that is not finite")
        if len(self.labels) and int(self.labels.min()) < 0:
            raise DataSplitError("labels count from 0")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one record."""
        return self.inputs.shape[1:]

    def select(self, chosen: NDArray[np.integer[Any]] | NDArray[np.bool_] | slice) -> Records:
        """The records at these indices, in that order."""
        return Records(inputs=self.inputs[chosen], labels=self.labels[chosen])
