"""Lowd and Meek's attack on a linear classifier of two classes, from labels alone.

         − │ +            1  two records with different labels (the sign witnesses)
           │              2  bisect between them: a point on the boundary
        x──┼──x           3  step off the boundary by a small slack s
           │              4  along every axis, bisect how far the boundary is: tᵢ = −s / wᵢ
           │

All axes are bisected at the same time, one request per step, so that a service with a long way
to it is asked some hundred times and not once per record. Axes whose boundary lies outside the
box have a small weight: they are tried again closer to the boundary.

Lowd and Meek 2005, "Adversarial learning", section 4; Tramèr et al. 2016, section 6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attacks.core.arrays import Floats
from attacks.core.intervals import exact
from attacks.core.oracle import Oracle, OracleInfo
from attacks.core.result import AttackResult
from attacks.errors import AbilityError, BudgetError, DataSplitError
from attacks.extraction.outcome import ExtractionAttempt
from attacks.extraction.setting import ExtractionData, uniform_inputs
from attacks.extraction.tramer.linear import LinearModel

_WITNESSES: Final = 32  # records per search for two labels, before anything is bisected


@dataclass(frozen=True, slots=True, kw_only=True)
class LowdMeek:
    """Recover the direction and the offset of the boundary with at most ``queries`` labels.

    ``bits``: bisection steps per line, which is the precision of a distance relative to the box;
    what is more than the oracle's own noise is wasted. ``slacks``: how far from the boundary the
    axes are searched, relative to the distance between the witnesses, largest first; every next
    one serves the weights that were too small for the one before. The smallest should exceed
    2^−bits and the oracle's noise by some orders of magnitude.

    ``run`` raises AbilityError for other than two classes, BudgetError below the minimum or if a
    quarter of the budget finds one label only.
    """

    queries: int
    bits: int = 40
    slacks: tuple[float, ...] = (1e-3, 1e-6)

    def __post_init__(self) -> None:
        falling = all(a > b for a, b in zip(self.slacks, self.slacks[1:], strict=False))
        if self.bits < 4 or not self.slacks or not falling or not 0 < self.slacks[0] < 1:
            raise DataSplitError(
                f"expected at least 4 bits and slacks falling from below 1, got {self.bits} and "
                f"{self.slacks}"
            )

    def minimum_queries(self, info: OracleInfo) -> int:
        """Two witnesses, one line between them, two looks and one line for each axis."""
        return 2 + self.bits + info.features * (2 + self.bits)

    def run(self, oracle: Oracle, data: ExtractionData, rng: np.random.Generator) -> AttackResult:
        info = oracle.info
        if info.classes != 2:
            raise AbilityError(
                f"lowd-meek finds the boundary between two classes, and {info.name} has "
                f"{info.classes}: use adaptive retraining"
            )
        attempt = ExtractionAttempt.start("lowd-meek", self, oracle, data)
        source = _Labels(oracle=oracle, left=self.queries)
        negative, positive = _witnesses(source, data, rng)
        boundary = _bisect_between(source, negative, positive, self.bits)
        weights = np.zeros(info.features)
        unknown = np.arange(info.features)
        for slack in self.slacks:
            # An axis at the edge of the box has room on one side only: the boundary is then
            # visible from one side of it and not from the other.
            for side in (slack, -slack):
                axes = unknown[: source.left // (2 + self.bits)]
                if len(axes) == 0:
                    continue
                base = boundary + side * (positive - negative)
                found = _weights_along_axes(source, base, axes, self.bits, side > 0)
                # Distances give weights in units of the slack: all in units of the first.
                weights[axes] = found * side / self.slacks[0]
                unknown = np.flatnonzero(weights == 0)
        used = self.queries - source.left
        notes = []
        if len(unknown):
            notes.append(
                f"{len(unknown)} weights count as zero: they are too small to be seen from "
                f"{self.slacks[-1]:.0e}, or the budget ended before"
            )
        column = np.stack([np.zeros(info.features), weights], axis=1)  # (d, 2)
        return attempt.finish(
            LinearModel(weights=column, bias=np.array([0.0, -float(weights @ boundary)])),
            rng,
            used=used,
            has_logits=False,
            extra={
                "queries": exact(used, count=1),
                "queries_per_unknown": exact(used / (info.features + 1), count=1),
                "weights_unseen": exact(len(unknown), count=info.features),
            },
            notes=notes,
        )


@dataclass(slots=True, kw_only=True)
class _Labels:
    """Labels for flat records until the budget is spent."""

    oracle: Oracle
    left: int

    def positive(self, flat: Floats) -> NDArray[np.bool_]:
        """Which of (B, d) records get label 1."""
        if len(flat) > self.left:
            raise BudgetError(
                f"lowd-meek needs {len(flat)} more queries and has {self.left} left: raise the "
                "budget, or lower the bits"
            )
        self.left -= len(flat)
        info = self.oracle.info
        records = np.clip(flat, info.low, info.high).reshape(len(flat), *info.input_shape)
        return np.asarray(self.oracle.query(records).labels == 1)


def _witnesses(
    source: _Labels, data: ExtractionData, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """A record of each label: from the pool and the seeds first, then from the whole box."""
    info = source.oracle.info
    own = np.concatenate([data.seeds.inputs, data.pool]).reshape(-1, info.features)
    own = own[rng.permutation(len(own))]
    sides: dict[bool, Floats] = {}
    budget = source.left // 4
    while len(sides) < 2 and source.left > 0 and budget > 0:
        count = min(_WITNESSES if sides else 2, budget)
        drawn, own = own[:count], own[count:]
        if len(drawn) == 0:
            drawn = uniform_inputs(info, count, rng).reshape(count, -1)
        budget -= len(drawn)
        labels = source.positive(drawn)
        for side in (False, True):
            if side not in sides and (labels == side).any():
                sides[side] = drawn[labels == side][0]
    if len(sides) < 2:
        raise BudgetError(
            f"a quarter of the budget found one label only on {info.name}: give seeds or a pool "
            "with both classes, or raise the budget"
        )
    return sides[False], sides[True]


def _bisect_between(source: _Labels, negative: Floats, positive: Floats, bits: int) -> Floats:
    def is_positive(share: Floats) -> NDArray[np.bool_]:
        return source.positive(negative + share[:, None] * (positive - negative))

    low, high = _bisect(is_positive, np.zeros(1), np.ones(1), bits)
    return np.asarray(negative + (low + high)[0] / 2 * (positive - negative))


def _weights_along_axes(
    source: _Labels, base: Floats, axes: NDArray[np.int64], bits: int, label: bool
) -> Floats:
    """(axes,) weights in units of the slack at ``base``, 0 where no boundary is in the box.

    ``label``: on which side of the boundary ``base`` is.
    """
    info = source.oracle.info
    rows = np.repeat(base[None], len(axes), axis=0)
    at = np.arange(len(axes))
    ends = []
    for bound in (info.low, info.high):
        moved = rows.copy()
        moved[at, axes] = bound
        ends.append(moved)
    flips = (source.positive(np.concatenate(ends)) != label).reshape(2, len(axes))
    seen = flips.any(axis=0)
    target = np.where(flips[0], info.low, info.high)[seen]
    chosen, start = axes[seen], base[axes[seen]]
    if not seen.any():
        return np.zeros(len(axes))

    def has_flipped(share: Floats) -> NDArray[np.bool_]:
        moved = np.repeat(base[None], len(chosen), axis=0)
        moved[np.arange(len(chosen)), chosen] = start + share * (target - start)
        return np.asarray(source.positive(moved) != label)

    low, high = _bisect(has_flipped, np.zeros(len(chosen)), np.ones(len(chosen)), bits)
    weights = np.zeros(len(axes))
    weights[seen] = -1.0 / ((low + high) / 2 * (target - start))
    return weights


def _bisect(
    beyond: Callable[[Floats], NDArray[np.bool_]], low: Floats, high: Floats, bits: int
) -> tuple[Floats, Floats]:
    """Narrow (lines,) intervals at whose low end ``beyond`` is false and true at the high."""
    for _ in range(bits):
        middle = (low + high) / 2
        is_beyond = beyond(middle)
        low, high = np.where(is_beyond, low, middle), np.where(is_beyond, middle, high)
    return low, high
