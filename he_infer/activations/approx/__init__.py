"""Polynomial approximations of activation functions: one function per method.

    polynomial = minimax(relu, interval=(-4.0, 6.0), degree=4)
    polynomial.sup_error, polynomial.coefficients_power()

Every method takes a vectorised numpy callable, an interval and a degree and returns a
Polynomial. METHODS and FUNCTIONS name them for command lines and reports.
"""

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
from he_infer.activations.approx.methods import METHODS, Method
from he_infer.activations.approx.minimax import minimax
from he_infer.activations.approx.polynomial import Interval, Polynomial
from he_infer.activations.approx.taylor import taylor

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
