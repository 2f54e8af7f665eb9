"""The approximation methods by name, for command lines and reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from he_infer.activations.approx.composite import composite_minimax
from he_infer.activations.approx.fits import (
    chebyshev,
    derivative_based,
    hermite,
    least_squares,
    weighted_chebyshev,
)
from he_infer.activations.approx.functions import Function
from he_infer.activations.approx.minimax import minimax
from he_infer.activations.approx.polynomial import Interval, Polynomial
from he_infer.activations.approx.taylor import taylor


class Method(Protocol):
    """What every approximation method looks like to its callers."""

    def __call__(self, function: Function, /, *, interval: Interval, degree: int) -> Polynomial: ...


METHODS: Final[Mapping[str, Method]] = {
    "taylor": taylor,
    "least_squares": least_squares,
    "chebyshev": chebyshev,
    "weighted_chebyshev": weighted_chebyshev,
    "derivative_based": derivative_based,
    "hermite": hermite,
    "minimax": minimax,
    "composite_minimax": composite_minimax,
}
