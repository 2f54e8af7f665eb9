"""Which values a poison record may hold, and the nearest one that it may.

A linear function over a ball and a slab is maximised through two multipliers. For fixed
multipliers the maximiser is the point of the domain that lies nearest to some given point. So this
nearest point is all that a domain has to know (see :mod:`attacks.poisoning.certified.feasible`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from attacks.core.arrays import Floats
from attacks.errors import DataSplitError


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

    is_everything: ClassVar[bool] = True
    is_sparse: ClassVar[bool] = False

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

    is_everything: ClassVar[bool] = False
    is_sparse: ClassVar[bool] = False

    def nearest(self, point: Floats) -> Floats:
        return np.clip(point, self.low, self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """0, 1, 2, …: how often a word occurs."""

    is_everything: ClassVar[bool] = False
    is_sparse: ClassVar[bool] = True

    def nearest(self, point: Floats) -> Floats:
        # Ceiling of x − ½ rounds halves down.
        return np.maximum(np.ceil(point - 0.5), 0.0)
