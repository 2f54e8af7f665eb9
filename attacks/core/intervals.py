"""Confidence intervals: for proportions, and by resampling whole models or records."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from attacks.errors import AttackError, TooFewRecordsError

CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its interval: ``low ≤ value ≤ high`` at ``confidence``, made by ``method``.

    ``count``: how many independent units (records, models) it rests on. A figure that is exact
    (a count, an identity) has low = value = high and method "exact".
    """

    value: float
    low: float
    high: float
    method: str
    count: int
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.low <= self.high):
            raise AttackError(f"not an estimate: {self.value} in [{self.low}, {self.high}]")

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def exact(value: float, *, count: int, method: str = "exact") -> Estimate:
    """A figure without sampling error, or a bound: low = value = high."""
    return Estimate(value=value, low=value, high=value, method=method, count=count)


def clopper_pearson(successes: int, trials: int, *, confidence: float = CONFIDENCE) -> Estimate:
    """The exact two-sided interval of a proportion (Clopper and Pearson 1934)."""
    if trials < 1:
        raise TooFewRecordsError("a proportion needs at least one trial", needed=1)
    if not 0 <= successes <= trials:
        raise AttackError(f"{successes} successes of {trials} trials")
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else stats.beta.ppf(tail, successes, trials - successes + 1)
    high = (
        1.0 if successes == trials else stats.beta.ppf(1 - tail, successes + 1, trials - successes)
    )
    return Estimate(
        value=successes / trials,
        low=float(low),
        high=float(high),
        method="Clopper-Pearson",
        count=trials,
        confidence=confidence,
    )


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    units: int,
    rng: np.random.Generator,
    *,
    method: str,
    resamples: int = 1000,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Percentile bootstrap over ``units`` things that are independent of each other.

    ``statistic`` gets indices (units,) drawn with replacement, and 0 … units-1 once for the
    value itself. Units are whole models where records share a model, single records where
    there is one model. Raises TooFewRecordsError below two units.
    """
    if units < 2:
        raise TooFewRecordsError(f"a bootstrap resamples at least 2 units, got {units}", needed=2)
    value = float(statistic(np.arange(units)))
    drawn = np.array([float(statistic(rng.integers(0, units, units))) for _ in range(resamples)])
    tail = (1 - confidence) / 2
    low, high = (float(q) for q in np.quantile(drawn, [tail, 1 - tail]))
    return Estimate(
        value=value,
        low=min(low, value),
        high=max(high, value),
        method=method,
        count=units,
        confidence=confidence,
    )
