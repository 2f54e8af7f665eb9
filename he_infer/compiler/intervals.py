"""A sample batch → the interval that every nonlinear node's input stays in.

Encrypted values cannot be clamped, so the static interval is what decides both accuracy and
precision. Intervals are per feature, widened by a margin, and never narrower than a share of
the layer's widest: a feature that happened to be constant on the sample may move later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from he_infer.errors import InputError
from he_infer.plan import ir

MARGIN: Final = 1.1
NARROWEST: Final = 1 / 16  # of the layer's widest interval
CONSTANT: Final = 1e-9  # of a layer's largest value: a spread that is rounding alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Per-feature interval [center − radius, center + radius]; both arrays are (features,)."""

    center: ir.FloatArray
    radius: ir.FloatArray

    @property
    def low(self) -> float:
        return float((self.center - self.radius).min())

    @property
    def high(self) -> float:
        return float((self.center + self.radius).max())


def calibrate(graph: ir.Graph, records: ir.FloatArray) -> dict[str, Interval]:
    """Intervals of every nonlinear node's input over ``records`` (batch, features).

    Raises InputError if the sample is empty or not finite.
    """
    if len(records) == 0:
        raise InputError("the calibration sample is empty: give a few hundred records")
    if not np.isfinite(records).all():
        raise InputError("the calibration sample holds NaN or infinite values")
    values = ir.evaluate(graph, records)
    intervals = {}
    for node in graph:
        if isinstance(node, ir.Elementwise):
            seen = values[node.source]
            low, high = seen.min(axis=0), seen.max(axis=0)
            radius = (high - low) / 2 * MARGIN
            widest = float(radius.max())
            if widest <= CONSTANT * float(np.abs(seen).max()):
                widest = 1.0  # constant up to rounding: do not blow the rounding up
            intervals[node.name] = Interval(
                center=(low + high) / 2, radius=np.maximum(radius, NARROWEST * widest)
            )
    return intervals


def layer_interval(interval: Interval) -> tuple[float, float]:
    """One (center, radius) that covers every feature of a layer."""
    center = (interval.low + interval.high) / 2
    return center, (interval.high - interval.low) / 2
