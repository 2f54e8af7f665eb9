"""Labelled records: grey images, and tables of numeric features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he_infer.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Grey images with labels.

    ``images``: (B, H, W) uint8, 0 … ``max_value``; ``labels``: (B,) int64, from 0.
    Raises DataError if shapes, types or values do not fit together.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    max_value: int = 255

    def __post_init__(self) -> None:
        if self.images.ndim != 3 or self.images.dtype != np.uint8:
            raise DataError(f"{self.name}: images must be uint8 of shape (count, height, width)")
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"{self.name}: {len(self.images)} images need as many int64 labels, "
                f"got {self.labels.dtype} of shape {self.labels.shape}"
            )
        if self.images.size and int(self.images.max()) > self.max_value:
            raise DataError(f"{self.name}: a pixel exceeds {self.max_value}")

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self) -> NDArray[np.float32]:
        """Pixels scaled to [0, 1], (B, 1, H, W)."""
        return (self.images[:, None] / np.float32(self.max_value)).astype(np.float32)

    def flat_inputs(self) -> NDArray[np.float32]:
        """Pixels scaled to [0, 1], (B, H·W)."""
        return self.inputs().reshape(len(self), -1)

    def select(self, indices: NDArray[np.integer[Any]] | slice) -> Dataset:
        """The records at ``indices``, in that order."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Numeric features with labels: ``features`` (B, F) float64, ``labels`` (B,) int64."""

    name: str
    features: NDArray[np.float64]
    labels: NDArray[np.int64]
    feature_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.features.shape != (len(self.labels), len(self.feature_names)):
            raise DataError(
                f"{self.name}: features of shape {self.features.shape} do not fit "
                f"{len(self.labels)} labels and {len(self.feature_names)} names"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: NDArray[np.integer[Any]] | slice) -> Table:
        """The records at ``indices``, in that order."""
        return replace(self, features=self.features[indices], labels=self.labels[indices])
