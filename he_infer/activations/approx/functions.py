"""Activation functions as vectorised numpy callables, with their exact derivatives.

The registries are keyed by the callable itself, so that a caller's own function of the same
name is never mistaken for one of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

# numpy has no erf of its own; the standard library's is accurate to the last digit or two.
_erf: Final = np.frompyfunc(math.erf, 1, 1)


def relu(x: Array) -> Array:
    """Return max(x, 0)."""
    return np.maximum(x, 0.0)


def sign(x: Array) -> Array:
    """Return -1, 0 or 1."""
    return np.sign(x)


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), without overflow at either end."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(x)))


def tanh(x: Array) -> Array:
    """Return the hyperbolic tangent."""
    return np.asarray(np.tanh(x), dtype=np.float64)


def gelu(x: Array) -> Array:
    """Return x·Φ(x), Φ the standard normal distribution (the exact form, not the tanh one)."""
    return np.asarray(x) * _normal_cdf(x)


def silu(x: Array) -> Array:
    """Return x·sigmoid(x), also known as swish."""
    return np.asarray(x) * sigmoid(x)


def softplus(x: Array) -> Array:
    """Return log(1 + exp(x)), the smooth relative of ReLU."""
    return np.logaddexp(0.0, x)


def _normal_cdf(x: Array) -> Array:
    scaled = np.asarray(x, dtype=np.float64) / math.sqrt(2.0)
    return 0.5 * (1.0 + np.asarray(_erf(scaled), dtype=np.float64))


def _normal_pdf(x: Array) -> Array:
    return np.exp(-0.5 * np.square(x)) / math.sqrt(2.0 * math.pi)


def _step(x: Array) -> Array:
    return np.heaviside(x, 0.5)


def _sigmoid_slope(x: Array) -> Array:
    return sigmoid(x) * sigmoid(-np.asarray(x))


def _tanh_slope(x: Array) -> Array:
    return 1.0 - np.square(np.tanh(x))


def _gelu_slope(x: Array) -> Array:
    return _normal_cdf(x) + np.asarray(x) * _normal_pdf(x)


def _silu_slope(x: Array) -> Array:
    return sigmoid(x) + np.asarray(x) * _sigmoid_slope(x)


FUNCTIONS: Final[Mapping[str, Function]] = {
    function.__name__: function for function in (relu, sigmoid, tanh, gelu, silu, softplus)
}

DERIVATIVES: Final[Mapping[Function, Function]] = {
    relu: _step,
    sigmoid: _sigmoid_slope,
    tanh: _tanh_slope,
    gelu: _gelu_slope,
    silu: _silu_slope,
    softplus: sigmoid,
}


def sigmoid_series(at: float, order: int) -> Array:
    """Taylor coefficients of the sigmoid around ``at``, from s' = s - s²; (order + 1,)."""
    s = np.zeros(order + 1)
    s[0] = float(sigmoid(np.asarray(at)))
    for k in range(order):
        s[k + 1] = (s[k] - np.dot(s[: k + 1], s[k::-1])) / (k + 1)
    return s


def tanh_series(at: float, order: int) -> Array:
    """Taylor coefficients of tanh around ``at``, from t' = 1 - t²; (order + 1,)."""
    t = np.zeros(order + 1)
    t[0] = math.tanh(at)
    for k in range(order):
        t[k + 1] = ((1.0 if k == 0 else 0.0) - np.dot(t[: k + 1], t[k::-1])) / (k + 1)
    return t


def softplus_series(at: float, order: int) -> Array:
    """Taylor coefficients of softplus around ``at``: the sigmoid's, integrated; (order + 1,)."""
    return _integrate(sigmoid_series(at, order), float(softplus(np.asarray(at))))


def silu_series(at: float, order: int) -> Array:
    """Taylor coefficients of x·sigmoid(x) around ``at``; (order + 1,)."""
    return _times_x(sigmoid_series(at, order), at)


def gelu_series(at: float, order: int) -> Array:
    """Taylor coefficients of x·Φ(x) around ``at``, from φ' = -x·φ; (order + 1,)."""
    density = np.zeros(order + 1)
    density[0] = float(_normal_pdf(np.asarray(at)))
    for k in range(order):
        before = density[k - 1] if k else 0.0
        density[k + 1] = -(at * density[k] + before) / (k + 1)
    return _times_x(_integrate(density, float(_normal_cdf(np.asarray(at)))), at)


def _integrate(series: Array, constant: float) -> Array:
    return np.concatenate([[constant], series[:-1] / np.arange(1, series.size)])


def _times_x(series: Array, at: float) -> Array:
    # x = at + (x - at): the second summand moves every coefficient up by one.
    return np.asarray(at * series + np.concatenate([[0.0], series[:-1]]), dtype=np.float64)


SERIES: Final[Mapping[Function, Callable[[float, int], Array]]] = {
    sigmoid: sigmoid_series,
    tanh: tanh_series,
    gelu: gelu_series,
    silu: silu_series,
    softplus: softplus_series,
}
