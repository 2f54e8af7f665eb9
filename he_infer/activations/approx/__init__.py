"""Polynomial approximations of activation functions: one function per method.

    polynomial = minimax(relu, interval=(-4.0, 6.0), degree=4)
    polynomial.sup_error, polynomial.coefficients_power()

Every method takes a vectorised numpy callable, an interval and a degree and returns a
Polynomial. METHODS and FUNCTIONS name them for command lines and reports.
"""

from he_infer.activations.approx.composite import (
    CompositePolynomial as CompositePolynomial,
    composite_minimax as composite_minimax,
    composite_sign as composite_sign,
)
from he_infer.activations.approx.fits import (
    chebyshev as chebyshev,
    cryptodl_weight as cryptodl_weight,
    derivative_based as derivative_based,
    hermite as hermite,
    least_squares as least_squares,
    weighted_chebyshev as weighted_chebyshev,
)
from he_infer.activations.approx.functions import (
    FUNCTIONS as FUNCTIONS,
    Array as Array,
    Function as Function,
    gelu as gelu,
    relu as relu,
    sigmoid as sigmoid,
    sign as sign,
    silu as silu,
    softplus as softplus,
    tanh as tanh,
)
from he_infer.activations.approx.methods import METHODS as METHODS, Method as Method
from he_infer.activations.approx.minimax import minimax as minimax
from he_infer.activations.approx.polynomial import Interval as Interval, Polynomial as Polynomial
from he_infer.activations.approx.taylor import taylor as taylor
