"""Chooses how a linear map's rotations are split into baby and giant steps, by predicted time."""

from __future__ import annotations

import numpy as np

from he_infer.plan.layout import IntArray
from he_infer.plan.packing import Entries, Split, repeats, unique_rows
from he_infer.runtime.costs import CostModel, LinearCounts


def best_split(
    found: Entries, *, n: int, level: int, cost: CostModel, batch: int = 1
) -> tuple[Split, float]:
    """The cheapest baby-step/giant-step split and its predicted milliseconds.

    All of it happens at ``level``: the rescale comes last.
    """
    distinct = found.distinct
    top = max(2, 1 << int(distinct[:, 2].max(initial=0)).bit_length())
    best: tuple[Split, float] | None = None
    modulus = 1
    while modulus <= top:
        for centred in (False, True):
            split = Split(modulus=modulus, centred=centred)
            price = _price(distinct, split, found, n=n, level=level, cost=cost, batch=batch)
            if best is None or price < best[1] * 0.999:
                best = (split, price)
        modulus *= 2
    assert best is not None
    return best


def _price(
    distinct: IntArray,
    split: Split,
    found: Entries,
    *,
    n: int,
    level: int,
    cost: CostModel,
    batch: int,
) -> float:
    baby, giant = split.apply(distinct[:, 2])
    rotated = unique_rows(distinct[:, 1], baby)
    hoisted = rotated[rotated[:, 1] != 0]
    steps = np.unique(giant)
    # Each target walks through every giant step below its outermost one.
    outermost = np.zeros(found.targets, dtype=np.int64)
    np.maximum.at(outermost, distinct[:, 0], giant)
    walked = np.searchsorted(steps[steps > 0], outermost, side="right")
    numbers = found.period == 1
    counts = LinearCounts(
        hoisted=len(np.unique(hoisted[:, 0])),
        babies=len(hoisted),
        giants=int(walked.sum()),
        folds=len(found.folds) * found.targets,
        products=0 if numbers else len(distinct),
        full=0 if numbers or repeats(found.period * batch, n // 2) else len(distinct),
        numbers=len(distinct) if numbers else 0,
        targets=found.targets,
    )
    return cost.linear_ms(n, level, counts)
