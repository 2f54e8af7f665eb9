"""Which values a poison record may hold, and the nearest one that it may.

A linear function over a ball and a slab is maximised through two multipliers, and for fixed
multipliers the maximiser is the point of the domain that lies nearest to a point in the open:
the one thing a domain has to know (see :mod:`attacks.poisoning.feasible`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from attacks.errors import DataSplitError

Floats = NDArray[np.float64]


class Domain(Protocol):
    """A set of values, the same for every feature."""

    @property
    def is_everything(self) -> bool: ...

    @property
    def is_sparse(self) -> bool:
        """Whether records are mostly zeros, and are kept as such."""
        ...

    def nearest(self, point: Floats) -> Floats:
        """The nearest allowed point, value by value; ties go to zero."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Anywhere:
    """Any real value, also one that no honest record holds."""

    @property
    def is_everything(self) -> bool:
        return True

    @property
    def is_sparse(self) -> bool:
        return False

    def nearest(self, point: Floats) -> Floats:
        return point


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Values in [low, high], such as pixels'; DataSplitError unless low < high."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise DataSplitError(f"values lie between low < high, got [{self.low}, {self.high}]")

    @property
    def is_everything(self) -> bool:
        return False

    @property
    def is_sparse(self) -> bool:
        return False

    def nearest(self, point: Floats) -> Floats:
        return np.clip(point, self.low, self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """0, 1, 2, …: how often a word occurs."""

    @property
    def is_everything(self) -> bool:
        return False

    @property
    def is_sparse(self) -> bool:
        return True

    def nearest(self, point: Floats) -> Floats:
        # Ceiling of x − ½ rounds halves down.
        return np.maximum(np.ceil(point - 0.5), 0.0)
