"""What an attack reports: estimates, curves, what was spent, beside a baseline without oracle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from attacks.core.intervals import Estimate
from attacks.core.oracle import Spent
from attacks.core.threat import ThreatModel
from attacks.errors import AttackError


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Points to draw: ``x``, ``y`` and the band ``low`` … ``high``, all of one length.

    Raises AttackError if the lengths differ.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    x_label: str
    y_label: str

    def __post_init__(self) -> None:
        if len({len(column) for column in (self.x, self.y, self.low, self.high)}) != 1:
            raise AttackError("x, y, low and high must be of one length")

    @classmethod
    def of(cls, x: Iterable[float], y: Iterable[Estimate], *, x_label: str, y_label: str) -> Curve:
        """A curve through estimates, whose intervals are its band."""
        points = tuple(y)
        return cls(
            x=tuple(float(value) for value in x),
            y=tuple(point.value for point in points),
            low=tuple(point.low for point in points),
            high=tuple(point.high for point in points),
            x_label=x_label,
            y_label=y_label,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttackResult:
    """One attack on one oracle.

    ``metrics``: the figures by name; ``primary`` names the one that tables show. ``baseline``:
    the same figures for an adversary with no oracle, where there is one.
    ``notes``: warnings a reader must see. ``artifact``: what was stolen or the per-record scores,
    for a caller that goes on with it; never part of the JSON.
    """

    attack: str
    oracle: str
    threat_model: ThreatModel
    primary: str
    metrics: Mapping[str, Estimate]
    spent: Spent
    seconds: float
    baseline: Mapping[str, Estimate] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    artifact: Any = None

    def __post_init__(self) -> None:
        if self.primary not in self.metrics:
            raise ValueError(f"{self.attack} reports no {self.primary!r}")
        for name in ("metrics", "baseline", "curves"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def figure(self) -> Estimate:
        """The primary metric."""
        return self.metrics[self.primary]

    def to_json(self) -> dict[str, Any]:
        return {
            "attack": self.attack,
            "oracle": self.oracle,
            "threat_model": self.threat_model,
            "primary": self.primary,
            "metrics": {name: estimate.to_json() for name, estimate in self.metrics.items()},
            "baseline": {name: estimate.to_json() for name, estimate in self.baseline.items()},
            "curves": {name: curve.to_json() for name, curve in self.curves.items()},
            "spent": asdict(self.spent),
            "seconds": self.seconds,
            "notes": list(self.notes),
        }
