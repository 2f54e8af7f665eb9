"""Polynomials on an interval, and the search for the extrema of an approximation error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.polynomial import chebyshev as cheb
from numpy.typing import ArrayLike, NDArray

from he_infer.activations.approx.functions import Array, Function
from he_infer.errors import ApproximationError

Interval = tuple[float, float]

MAX_DEGREE: Final = 256
GOLDEN: Final = (math.sqrt(5.0) - 1.0) / 2.0
_GOLDEN_STEPS: Final = 48  # shrinks a bracket by 1e-10; the error is flat at an extremum


@dataclass(frozen=True, slots=True, kw_only=True)
class Polynomial:
    """A polynomial on an interval, held in the Chebyshev basis for numerical stability.

    ``coefficients``: c_0 … c_degree of sum c_k·T_k(u) with u = (x - center) / radius.
    ``interval``: (low, high), where the approximation is meant to hold.
    ``sup_error``: largest |function - polynomial| over the interval. It is *measured*: on a
    dense grid, refined around each extremum by golden-section search. It is no proof, and a
    feature of the function narrower than the grid can hide from it.
    Raises ApproximationError for empty or non-finite input.
    """

    coefficients: tuple[float, ...]
    interval: Interval
    sup_error: float

    def __post_init__(self) -> None:
        check_interval(self.interval)
        if not self.coefficients:
            raise ApproximationError("a polynomial needs at least one coefficient, got none")
        if not all(math.isfinite(c) for c in self.coefficients):
            raise ApproximationError("the coefficients of the polynomial are not finite")
        if not self.sup_error >= 0.0:
            raise ApproximationError(f"expected an error of 0 or more, got {self.sup_error}")

    @property
    def degree(self) -> int:
        return len(self.coefficients) - 1

    @property
    def center(self) -> float:
        return center_and_radius(self.interval)[0]

    @property
    def radius(self) -> float:
        return center_and_radius(self.interval)[1]

    def __call__(self, x: ArrayLike) -> Array:
        """Evaluate by Clenshaw's recurrence; any shape in, the same shape out."""
        u = (np.asarray(x, dtype=np.float64) - self.center) / self.radius
        return np.asarray(cheb.chebval(u, np.asarray(self.coefficients)), dtype=np.float64)

    def coefficients_power(self) -> Array:
        """Return ascending powers of u = (x - center) / radius, shape (degree + 1,).

        Exact up to rounding, which grows like 2.4^degree: fine below degree 20 or so.
        """
        power = np.zeros(self.degree + 1)
        converted = cheb.cheb2poly(np.asarray(self.coefficients))
        power[: converted.size] = converted
        return power


def center_and_radius(interval: Interval) -> tuple[float, float]:
    """The middle of an interval and half its width."""
    return 0.5 * (interval[0] + interval[1]), 0.5 * (interval[1] - interval[0])


def check_interval(interval: Interval) -> None:
    """Raise ApproximationError unless ``interval`` is (low, high), finite, low < high."""
    low, high = interval
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ApproximationError("the interval is not finite: calibrate it on sample data")
    if not low < high or not 0.5 * (high - low) > 1e-12 * max(abs(low), abs(high)):
        raise ApproximationError(f"expected an interval with low < high, got [{low}, {high}]")


def check_request(interval: Interval, degree: int, *, lowest: int = 0) -> None:
    """Raise ApproximationError for an empty interval or a degree outside lowest … 256."""
    check_interval(interval)
    if isinstance(degree, bool) or not isinstance(degree, int | np.integer):
        raise ApproximationError(f"expected an integer degree, got {type(degree).__name__}")
    if not lowest <= degree <= MAX_DEGREE:
        raise ApproximationError(f"expected a degree from {lowest} to {MAX_DEGREE}, got {degree}")


def evaluate(function: Function, x: Array) -> Array:
    """Call ``function`` and raise ApproximationError unless it is vectorised and finite."""
    try:
        with np.errstate(all="ignore"):
            values = np.asarray(function(x), dtype=np.float64)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise ApproximationError(
            f"the function failed on an array of {x.size} points ({type(error).__name__}): "
            "give a vectorised numpy callable"
        ) from error
    if values.shape == () and x.shape != ():
        values = np.full(x.shape, float(values))  # a constant, such as lambda x: 1.0
    if values.shape != x.shape:
        raise ApproximationError(
            f"the function turned shape {x.shape} into {values.shape}: give an elementwise one"
        )
    if not np.isfinite(values).all():
        raise ApproximationError("the function is not finite everywhere on the interval")
    return values


def chebyshev_nodes(count: int) -> Array:
    """The zeros cos(π(j + 1/2) / count) of T_count, where interpolation is well conditioned."""
    return np.asarray(np.cos(np.pi * (np.arange(count) + 0.5) / count))


def interpolation_coefficients(values: Array) -> Array:
    """Chebyshev coefficients from values at :func:`chebyshev_nodes`; (n,)."""
    n = values.size
    angles = np.pi * np.outer(np.arange(n), np.arange(n) + 0.5) / n
    coefficients = (2.0 / n) * (np.cos(angles) @ values)
    coefficients[0] *= 0.5
    return np.asarray(coefficients, dtype=np.float64)


def fitted(function: Function, coefficients: Array, interval: Interval) -> Polynomial:
    """Wrap Chebyshev coefficients with their measured sup-norm error against ``function``."""
    bare = Polynomial(
        coefficients=tuple(float(c) for c in coefficients), interval=interval, sup_error=0.0
    )
    return Polynomial(
        coefficients=bare.coefficients,
        interval=interval,
        sup_error=sup_norm(lambda x: evaluate(function, x) - bare(x), interval, bare.degree),
    )


def sup_norm(error: Function, interval: Interval, degree: int) -> float:
    """Measure max |error| over the interval: dense grid, then golden section at its peaks."""
    grid = dense_grid(interval, 64 * (degree + 2) + 512)
    values = np.abs(error(grid))
    inner = values[1:-1]
    peaks = 1 + np.flatnonzero((inner >= values[:-2]) & (inner >= values[2:]))
    peaks = np.concatenate([[0], peaks, [grid.size - 1]]).astype(np.intp)
    _, refined = sharpen(lambda x: np.abs(error(x)), grid, peaks)
    return float(max(values.max(), refined.max()))


def dense_grid(interval: Interval, count: int) -> Array:
    """Chebyshev points with both ends, and zero, where activations have their kink."""
    low, high = interval
    u = -np.cos(np.linspace(0.0, np.pi, count))
    center, radius = center_and_radius(interval)
    grid = center + radius * u
    grid[0], grid[-1] = low, high
    if low < 0.0 < high:
        grid = np.union1d(grid, [0.0])
    return grid


def sharpen(height: Function, grid: Array, peaks: NDArray[np.intp]) -> tuple[Array, Array]:
    """Move each grid peak to the maximum of ``height`` between its two neighbours.

    Golden-section search, all peaks at once. Returns (positions, heights), never lower than
    the grid's own values.
    """
    low = grid[np.maximum(peaks - 1, 0)]
    high = grid[np.minimum(peaks + 1, grid.size - 1)]
    best_x, best = grid[peaks].copy(), height(grid[peaks])
    for _ in range(_GOLDEN_STEPS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        h_left, h_right = height(left), height(right)
        go_left = h_left > h_right
        low, high = np.where(go_left, low, left), np.where(go_left, right, high)
        x, h = np.where(go_left, left, right), np.maximum(h_left, h_right)
        best_x, best = np.where(h > best, x, best_x), np.maximum(best, h)
    return best_x, best
