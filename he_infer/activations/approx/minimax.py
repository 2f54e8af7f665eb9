"""The best polynomial in the sup norm, by Remez' exchange algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.polynomial import chebyshev as cheb
from numpy.typing import NDArray

from he_infer.activations.approx.functions import Array, Function
from he_infer.activations.approx.polynomial import (
    Interval,
    Polynomial,
    center_and_radius,
    check_request,
    dense_grid,
    evaluate,
    fitted,
    sharpen,
)
from he_infer.errors import ApproximationError

_MAX_EXCHANGES: Final = 100
_LEVELLED: Final = 1e-10  # stop when the error equioscillates to this relative accuracy
_ACCEPTABLE: Final = 1e-5  # still the best polynomial for every practical purpose
_ROUNDING: Final = 2e-14  # relative to the function: a difference this small is rounding noise
_WARPS: Final = (0.11, -0.23, 0.37, 0.0)  # see _first_reference


def minimax(function: Function, *, interval: Interval, degree: int) -> Polynomial:
    """Minimise the largest error; it then takes its extreme value with alternating sign.

    Works for kinked functions such as ReLU and |x| too: the exchange only compares values.
    Raises ApproximationError for bad input, or if the exchange does not level the error, as
    for a jump inside the interval.
    Source: Remez 1934; Pachón and Trefethen, "Barycentric-Remez algorithms for best
    polynomial approximation in the chebfun system", BIT 49 (2009).
    """
    check_request(interval, degree)
    coefficients = remez(function, basis=range(degree + 1), domain=interval, frame=interval)
    return fitted(function, coefficients, interval)


def remez(function: Function, *, basis: Sequence[int], domain: Interval, frame: Interval) -> Array:
    """Best approximation on ``domain`` by the T_k(u), k in ``basis``, u = 0 … ±1 on ``frame``.

    ``basis`` must satisfy the Haar condition on the domain: all degrees up to n, or the odd
    ones on a domain right of the frame's centre. Returns coefficients, (max(basis) + 1,).
    Raises ApproximationError if no starting reference leads to an equioscillating error.
    """
    center, radius = center_and_radius(frame)
    grid = dense_grid(domain, 48 * (len(basis) + 1) + 512)
    scale = float(np.abs(evaluate(function, grid)).max())
    columns = np.asarray(basis, dtype=np.intp)
    best = np.zeros(int(columns.max()) + 1)
    best_gap = np.inf
    for warp in _WARPS:
        reference = _first_reference(domain, len(basis) + 1, warp)
        for _ in range(_MAX_EXCHANGES):
            coefficients, level = _level(function, reference, columns, center, radius)

            def error(x: Array, c: Array = coefficients) -> Array:
                return evaluate(function, x) - cheb.chebval((x - center) / radius, c)

            peaks, heights = _alternation(error, np.union1d(grid, reference))
            largest = float(np.abs(heights).max()) if heights.size else 0.0
            gap = 0.0 if largest - level <= _ROUNDING * scale else (largest - level) / largest
            if gap < best_gap:
                best, best_gap = coefficients, gap
            if gap <= _LEVELLED or peaks.size < reference.size:
                break
            reference = _exchange(peaks, np.abs(heights), reference.size)
        if best_gap <= _ACCEPTABLE:
            return best
    raise ApproximationError(
        f"the remez exchange did not converge: {best_gap:.1e} of the error is not levelled; "
        "the function may jump inside the interval (use composite_minimax), or lower the degree"
    )


def _first_reference(domain: Interval, count: int, warp: float) -> Array:
    """Chebyshev extrema, warped off centre.

    An even function on a symmetric reference of even size has levelled error zero, from which
    no exchange escapes; the warp breaks the symmetry.
    """
    u = -np.cos(np.linspace(0.0, np.pi, count)) if count > 1 else np.zeros(1)
    u = u + warp * (1.0 - u * u)
    center, radius = center_and_radius(domain)
    return np.asarray(center + radius * u)


def _level(
    function: Function, reference: Array, columns: NDArray[np.intp], center: float, radius: float
) -> tuple[Array, float]:
    """Solve f(x_i) - p(x_i) = (-1)^i·E for the coefficients of p and |E|."""
    full = cheb.chebvander((reference - center) / radius, int(columns.max()))
    signs = (-1.0) ** np.arange(reference.size)
    system = np.column_stack([full[:, columns], signs])
    try:
        solution = np.linalg.solve(system, evaluate(function, reference))
    except np.linalg.LinAlgError as failure:
        raise ApproximationError("the remez reference degenerated: lower the degree") from failure
    coefficients = np.zeros(full.shape[1])
    coefficients[columns] = solution[:-1]
    return coefficients, float(abs(solution[-1]))


def _alternation(error: Function, grid: Array) -> tuple[Array, Array]:
    """The highest peak of each run of equal sign: positions and signed heights, alternating."""
    values = error(grid)
    kept = np.flatnonzero(values)
    if kept.size == 0:
        return np.zeros(0), np.zeros(0)
    signs = np.sign(values[kept])
    starts = np.concatenate([[0], 1 + np.flatnonzero(np.diff(signs))])
    ends = np.concatenate([starts[1:], [kept.size]])
    peaks = np.array(
        [
            kept[a + int(np.argmax(np.abs(values[kept[a:b]])))]
            for a, b in zip(starts, ends, strict=True)
        ],
        dtype=np.intp,
    )
    run_signs = signs[starts]
    positions, heights = sharpen(lambda x: run_signs * error(x), grid, peaks)
    order = np.argsort(positions, kind="stable")
    return positions[order], (run_signs * heights)[order]


def _exchange(peaks: Array, heights: Array, count: int) -> Array:
    """Keep ``count`` alternating peaks, the highest among them, by dropping the lowest."""
    peaks, heights = peaks.copy(), heights.copy()
    while peaks.size > count:
        last = peaks.size - 1
        lowest = int(np.argmin(heights))
        if peaks.size == count + 1 or lowest in (0, last):
            drop = [0 if heights[0] < heights[last] else last]
        else:
            # An inner peak leaves together with a neighbour, or two equal signs would meet.
            other = lowest - 1 if heights[lowest - 1] < heights[lowest + 1] else lowest + 1
            drop = [lowest, other]
        peaks, heights = np.delete(peaks, drop), np.delete(heights, drop)
    return peaks
