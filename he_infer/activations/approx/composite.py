"""Composite minimax polynomials for steep functions: sign, |x| and ReLU.

One polynomial needs a degree of about 1/gap to follow a jump; a chain of short ones needs
log(1/gap) of them, each doubling or better what the one before has achieved:

    [gap, 1] ──p1──► [1 - e1, 1 + e1] ──p2──► [1 - e2, 1 + e2] ──► …   ≈ 1 = sign(x)

Source: Lee, Lee, No, Kim, "Minimax Approximation of Sign Function by Composite Polynomial for
Homomorphic Comparison", IEEE TDSC 2021; Lee et al., "Precise Approximation of Convolutional
Neural Networks for Homomorphically Encrypted Data", arXiv:2105.10879, for ReLU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from he_infer.activations.approx.functions import Array, Function, relu, sign
from he_infer.activations.approx.minimax import remez
from he_infer.activations.approx.polynomial import (
    GOLDEN,
    Interval,
    Polynomial,
    center_and_radius,
    chebyshev_nodes,
    check_interval,
    check_request,
    fitted,
    interpolation_coefficients,
    sup_norm,
)
from he_infer.errors import ApproximationError

_MAX_STAGE_DEGREE: Final = 31


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositePolynomial:
    """sign(x) on [-radius, radius] as a chain of odd polynomials, first stage first.

    ``gap``: the guarantee holds for gap·radius ≤ |x| ≤ radius.
    ``sup_error``: largest |sign(x) - value| there, measured like Polynomial's.
    """

    stages: tuple[Polynomial, ...]
    radius: float
    gap: float
    sup_error: float

    def __post_init__(self) -> None:
        if not self.stages:
            raise ApproximationError("a composite polynomial needs at least one stage")

    @property
    def degree(self) -> int:
        """Degree of the expanded polynomial: the product over the stages."""
        return math.prod(stage.degree for stage in self.stages)

    @property
    def depth(self) -> int:
        """Multiplicative depth of the chain: ceil(log2(degree + 1)) per stage."""
        return sum(math.ceil(math.log2(stage.degree + 1)) for stage in self.stages)

    def __call__(self, x: ArrayLike) -> Array:
        value = np.asarray(x, dtype=np.float64) / self.radius
        for stage in self.stages:
            value = stage(value)
        return value

    def relu(self, x: ArrayLike) -> Array:
        """Evaluate x·(1 + sign(x)) / 2 with the chain in place of the sign."""
        x = np.asarray(x, dtype=np.float64)
        return 0.5 * x * (1.0 + self(x))


def composite_sign(*, radius: float, degrees: Sequence[int], gap: float) -> CompositePolynomial:
    """Chain minimax polynomials of odd ``degrees`` so that they approach the sign function.

    Each stage is the best odd approximation of 1 on the range that the one before maps
    [gap, 1] to. Raises ApproximationError for even or missing degrees, for a gap outside
    (0, 1), or where a stage does not converge.
    """
    check_interval((-radius, radius))
    if not degrees or any(d < 1 or d % 2 == 0 or d > _MAX_STAGE_DEGREE for d in degrees):
        raise ApproximationError(
            f"expected odd stage degrees from 1 to {_MAX_STAGE_DEGREE}, got {list(degrees)}"
        )
    if not 0.0 < gap < 1.0:
        raise ApproximationError(f"expected a gap between 0 and 1, got {gap}")
    low, high = gap, 1.0
    stages: list[Polynomial] = []
    error = 1.0
    for degree in degrees:
        if high - low <= 1e-12:
            break  # already exact to rounding: further stages would only add noise
        coefficients = remez(
            np.ones_like, basis=range(1, degree + 1, 2), domain=(low, high), frame=(-high, high)
        )
        bare = Polynomial(
            coefficients=tuple(map(float, coefficients)), interval=(-high, high), sup_error=0.0
        )
        error = sup_norm(lambda x, p=bare: p(x) - 1.0, (low, high), degree)  # type: ignore[misc]
        stages.append(
            Polynomial(coefficients=bare.coefficients, interval=bare.interval, sup_error=error)
        )
        low, high = 1.0 - error, 1.0 + error
    return CompositePolynomial(stages=tuple(stages), radius=radius, gap=gap, sup_error=error)


def composite_minimax(function: Function, *, interval: Interval, degree: int) -> Polynomial:
    """Expand the best composite chain whose total degree is at most ``degree``.

    ``function`` is ReLU, the absolute value (np.abs) or the sign. The gap is chosen to
    minimise the largest error over the whole interval, except for the sign, whose error at the
    jump is 1 whatever one does: there it is 1/16 of the radius, and sup_error says 1.
    For the factored form, which is what saves multiplications, call composite_sign.
    Raises ApproximationError for other functions and for degrees that hold no chain.
    """
    check_request(interval, degree)
    assemble = _FROM_SIGN.get(function)
    if assemble is None:
        raise ApproximationError(
            "composite minimax is for relu, the absolute value and the sign: "
            "use minimax for other functions"
        )
    extra, build = assemble
    degrees = _stage_degrees(degree - extra)
    if degrees is None:
        raise ApproximationError(f"expected a degree of {1 + extra} or more, got {degree}")
    radius = max(abs(interval[0]), abs(interval[1]))

    def expand(gap: float) -> Polynomial:
        chain = composite_sign(radius=radius, degrees=degrees, gap=gap)
        center, half = center_and_radius(interval)
        x = center + half * chebyshev_nodes(chain.degree + extra + 1)
        return fitted(function, interpolation_coefficients(build(chain, x)), interval)

    if extra == 0:
        return expand(1.0 / 16.0)
    return _best_gap(expand)


def _best_gap(expand: Callable[[float], Polynomial]) -> Polynomial:
    """Golden-section search over log2(gap), which the error is unimodal in."""
    low, high = -10.0, -0.1
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = expand(2.0**left), expand(2.0**right)
    for _ in range(24):
        if at_left.sup_error < at_right.sup_error:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = expand(2.0**left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = expand(2.0**right)
    return min(at_left, at_right, key=lambda p: p.sup_error)


def _stage_degrees(total: int) -> tuple[int, ...] | None:
    """The odd stage degrees 3, 5, 7 with the largest product up to ``total``; fewer depth first."""
    if total < 1:
        return None
    best: tuple[int, ...] = (1,)
    chains: list[tuple[int, ...]] = [()]
    while chains:
        chain = chains.pop()
        for degree in (3, 5, 7):
            longer = (*chain, degree)
            product = math.prod(longer)
            if product > total or degree < (chain[-1] if chain else 0):
                continue
            if (product, -len(longer)) > (math.prod(best), -len(best)):
                best = longer
            chains.append(longer)
    return best


# How each function follows from the sign, and how many degrees that adds.
_FROM_SIGN: Final[Mapping[Function, tuple[int, Callable[[CompositePolynomial, Array], Array]]]] = {
    relu: (1, CompositePolynomial.relu),
    np.abs: (1, lambda chain, x: x * chain(x)),
    sign: (0, CompositePolynomial.__call__),
    np.sign: (0, CompositePolynomial.__call__),
}
