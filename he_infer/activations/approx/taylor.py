"""Taylor polynomials: exact series for the named functions, resolved numerically otherwise."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.polynomial import chebyshev as cheb

from he_infer.activations.approx.functions import SERIES, Array, Function
from he_infer.activations.approx.polynomial import (
    Interval,
    Polynomial,
    center_and_radius,
    chebyshev_nodes,
    check_request,
    evaluate,
    fitted,
    interpolation_coefficients,
)
from he_infer.errors import ApproximationError

_HALVINGS: Final = 20
_RESOLVED: Final = 1e-13
_NOISE: Final = 1e-14
_MAX_NUMERIC_DEGREE: Final = 24


def taylor(
    function: Function, *, interval: Interval, degree: int, at: float | None = None
) -> Polynomial:
    """Expand around ``at``: zero where the interval holds it, else the interval's centre.

    Sigmoid, tanh, GELU, SiLU and softplus use exact recurrences. Any other callable is
    resolved by Chebyshev interpolation on shrinking neighbourhoods of ``at`` inside the
    interval, up to degree 24.
    Raises ApproximationError if the function has no Taylor series there (ReLU at zero: expand
    a smooth surrogate such as softplus instead), or if ``at`` lies outside the interval.
    """
    check_request(interval, degree)
    low, high = interval
    center, radius = center_and_radius(interval)
    if at is None:
        at = 0.0 if low <= 0.0 <= high else center
    if not low <= at <= high:
        raise ApproximationError(f"expected an expansion point in [{low}, {high}], got {at}")
    exact = SERIES.get(function)
    # Coefficients in powers of t = (x - at) / unit, so that none of them over- or underflows.
    if exact is not None:
        unit = radius
        series = exact(at, degree) * unit ** np.arange(degree + 1)
    else:
        series, unit = _resolve(function, at, degree, interval)
    t = (center + radius * chebyshev_nodes(degree + 1) - at) / unit
    values = np.polynomial.polynomial.polyval(t, series)
    return fitted(function, interpolation_coefficients(np.asarray(values)), interval)


def _resolve(function: Function, at: float, degree: int, interval: Interval) -> tuple[Array, float]:
    """Find the largest neighbourhood on which the function is smooth, and its series there."""
    if degree > _MAX_NUMERIC_DEGREE:
        raise ApproximationError(
            f"numerical Taylor coefficients are reliable up to degree {_MAX_NUMERIC_DEGREE}, "
            f"got {degree}: use chebyshev or minimax"
        )
    low, high = interval
    unit = min(high - at, at - low) or 0.5 * (high - low)
    nodes = chebyshev_nodes(degree + 25)
    for _ in range(_HALVINGS):
        center, radius = center_and_radius((max(at - unit, low), min(at + unit, high)))
        values = evaluate(function, center + radius * nodes)
        waves = interpolation_coefficients(values)
        scale = float(np.abs(waves).max())
        if scale == 0.0 or np.abs(waves[-4:]).max() <= _RESOLVED * scale:
            # The tail is rounding noise, and conversion to powers would amplify it.
            waves = waves[: 1 + int(np.flatnonzero(np.abs(waves) >= _NOISE * scale)[-1])]
            power = cheb.cheb2poly(waves)
            shift = np.polynomial.Polynomial(power)(
                np.polynomial.Polynomial([(at - center) / radius, 1.0])
            ).coef
            series = np.zeros(degree + 1)
            kept = min(shift.size, degree + 1)
            series[:kept] = shift[:kept]
            return series, radius
        unit *= 0.5
        if math.isclose(at + unit, at):
            break
    raise ApproximationError(
        f"the function has no Taylor series at {at} (a kink or a jump, as in ReLU at zero): "
        "expand a smooth surrogate such as softplus, or use another method"
    )
