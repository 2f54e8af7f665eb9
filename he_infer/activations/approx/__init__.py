"""Polynomial approximations of activation functions: one function per method.

    polynomial = minimax(relu, interval=(-4.0, 6.0), degree=4)
    polynomial.sup_error, polynomial.coefficients_power()

Every method takes a vectorised numpy callable, an interval and a degree and returns a
Polynomial. METHODS and FUNCTIONS name them for command lines and reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from he_infer.activations.approx.composite import (
    CompositePolynomial,
    composite_minimax,
    composite_sign,
)
from he_infer.activations.approx.fits import (
    chebyshev,
    cryptodl_weight,
    derivative_based,
    hermite,
    least_squares,
    weighted_chebyshev,
)
from he_infer.activations.approx.functions import (
    FUNCTIONS,
    Array,
    Function,
    gelu,
    relu,
    sigmoid,
    sign,
    silu,
    softplus,
    tanh,
)
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

__all__ = [
    "FUNCTIONS",
    "METHODS",
    "Array",
    "CompositePolynomial",
    "Function",
    "Interval",
    "Method",
    "Polynomial",
    "chebyshev",
    "composite_minimax",
    "composite_sign",
    "cryptodl_weight",
    "derivative_based",
    "gelu",
    "hermite",
    "least_squares",
    "minimax",
    "relu",
    "sigmoid",
    "sign",
    "silu",
    "softplus",
    "tanh",
    "taylor",
    "weighted_chebyshev",
]
