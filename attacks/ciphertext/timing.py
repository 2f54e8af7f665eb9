"""Does the time of an evaluation tell weights apart? Welch's t between two networks of one shape.

Procedure and threshold from dudect (Reparaz, Balasch and Verbauwhede 2017): measurements in
random order, the slowest cropped, |t| < 4.5 for no evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from attacks.core.arrays import Floats

THRESHOLD = 4.5
_KEPT = 0.9  # share of the measurements, the fastest; the rest is the machine's doing


@dataclass(frozen=True, slots=True, kw_only=True)
class Welch:
    """``t`` of ``samples`` measurements in all; the two means in milliseconds."""

    t: float
    samples: int
    means_ms: tuple[float, float]

    @property
    def differs(self) -> bool:
        return abs(self.t) >= THRESHOLD


def compare_times(
    first: Callable[[], float],
    second: Callable[[], float],
    *,
    samples: int,
    rng: np.random.Generator,
) -> Welch:
    """Call both in random order, each returning milliseconds; ``samples`` calls in all."""
    order = rng.permutation(np.arange(samples) % 2)
    times: tuple[list[float], list[float]] = ([], [])
    for which in order:
        times[which].append((first, second)[which]())
    # One threshold for both: cropping each at its own quantile would hide a slow tail.
    limit = float(np.quantile(np.concatenate([np.array(t) for t in times]), _KEPT))
    kept = [np.array([t for t in side if t <= limit]) for side in times]
    return Welch(
        t=welch(kept[0], kept[1]),
        samples=samples,
        means_ms=(float(kept[0].mean()), float(kept[1].mean())),
    )


def welch(a: Floats, b: Floats) -> float:
    """Welch's t statistic of two samples."""
    error = np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    return float((a.mean() - b.mean()) / max(float(error), 1e-15))
