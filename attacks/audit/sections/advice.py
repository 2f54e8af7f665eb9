"""Which remedy removes how much leakage for how much accuracy: from cells to a ranked table.

    leakage of a family    extraction: labels that the copy gives right, on test records
                           membership: 2 · AUC − 1, evasion: share of records that are fooled,
                           each of the best attack that an attacker who knows the remedy has
    removed                leakage without the remedy less leakage with it, paired over targets
    worth                  Σ removed over the families, where it is measurable, in points,
                           a point of accuracy lost (at least LEAST_LOST)

Remedies whose effect lies within its interval on every family are worth nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from attacks.audit.bench.bench import TrainedBench
from attacks.audit.bench.cell import DONE, Cell
from attacks.audit.bench.models import Subject
from attacks.audit.bench.state import CellName, StateStore
from attacks.audit.config import AuditConfig
from attacks.audit.figures.findings import Finding
from attacks.audit.figures.statistics import over_targets, paired_difference
from attacks.audit.sections.accuracy import ACCURACY
from attacks.audit.sections.remedies import NONE, TRIED, Option, measure, options_of
from attacks.core.intervals import Estimate
from attacks.progress import Progress

METRIC: Final[Mapping[str, str]] = {
    "extraction": "fidelity_test",
    "membership": "auc",
    "evasion": "success",
}
# Below a tenth of a point, losses of accuracy are noise and would make worths infinite.
LEAST_LOST: Final = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """On one family: leakage ``before`` and ``after``, by the attack that is best ``against`` the
    remedy; ``removed``: before − after."""

    before: Estimate
    after: Estimate
    removed: Estimate
    against: str

    @property
    def measurable(self) -> bool:
        return self.removed.low > 0

    def to_json(self) -> dict[str, Any]:
        return {
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "removed": self.removed.to_json(),
            "against": self.against,
            "measurable": self.measurable,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """``effects`` by family; ``accuracy`` with the remedy and what of it was ``lost``; both None,
    and a ``reason``, for a remedy that could not be tried."""

    name: str
    title: str
    cost: str
    effects: Mapping[str, Effect]
    accuracy: Estimate | None
    lost: Estimate | None
    reason: str = ""

    @property
    def worth(self) -> float:
        """Points of leakage removed a point of accuracy lost."""
        gains = [e.removed.value for e in self.effects.values() if e.measurable]
        lost = 0.0 if self.lost is None else self.lost.value
        return sum(gains) / max(lost, LEAST_LOST) if gains else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "cost": self.cost,
            "effects": {family: effect.to_json() for family, effect in self.effects.items()},
            "accuracy": None if self.accuracy is None else self.accuracy.to_json(),
            "lost": None if self.lost is None else self.lost.to_json(),
            "worth": self.worth,
            "reason": self.reason,
        }


def remedies_of(
    bench: TrainedBench,
    subject: Subject,
    store: StateStore,
    config: AuditConfig,
    *,
    progress: Progress | None,
    tell: Callable[[str], None] | None,
) -> tuple[Remedy, ...]:
    """Try every option on the audit's targets and rank them; resumes like the audit's cells."""
    options = list(options_of(bench, subject, config, progress=progress))
    targets = bench.targets
    cells = measure(options, store, config, targets=targets, progress=progress, tell=tell)
    return remedies(options, cells, targets)


def remedies(
    options: Sequence[Option], cells: Mapping[CellName, Cell], targets: Sequence[int]
) -> tuple[Remedy, ...]:
    """Every option but "none", the one that is worth most first, those not tried last."""
    found = [_remedy(option, cells, targets) for option in options if option.name != NONE]
    return tuple(sorted(found, key=lambda r: (r.accuracy is None, -r.worth)))


def _remedy(option: Option, cells: Mapping[CellName, Cell], targets: Sequence[int]) -> Remedy:
    effects = {}
    for family in TRIED:
        before = _best(NONE, family, cells, targets)
        after = _best(option.name, family, cells, targets)
        if before is None or after is None:
            continue
        first, second = (_leakage(family, estimates) for _, estimates in (before, after))
        effects[family] = Effect(
            before=over_targets(first),
            after=over_targets(second),
            removed=paired_difference(second, first),
            against=after[0],
        )
    accuracies = [
        _estimates(name, ACCURACY, ACCURACY, cells, targets) for name in (NONE, option.name)
    ]
    tried = all(accuracies)
    return Remedy(
        name=option.name,
        title=option.title,
        cost=option.cost,
        effects=effects,
        accuracy=over_targets(accuracies[1]) if tried else None,
        lost=paired_difference(accuracies[1], accuracies[0]) if tried else None,
        reason=option.reason,
    )


def _best(
    option: str, family: str, cells: Mapping[CellName, Cell], targets: Sequence[int]
) -> tuple[str, list[Estimate]] | None:
    """The attack that does best under an option, and its figures by target; None if none ran."""
    found = {
        attack: estimates
        for attack in TRIED[family]
        if (estimates := _estimates(option, attack, METRIC[family], cells, targets))
    }
    if not found:
        return None
    best = max(found, key=lambda attack: sum(e.value for e in found[attack]))
    return best, found[best]


def _estimates(
    option: str, attack: str, metric: str, cells: Mapping[CellName, Cell], targets: Sequence[int]
) -> list[Estimate]:
    """A figure of every target that was tried; empty unless all of them have it."""
    names = [CellName(twin=option, attack=attack, target=target) for target in targets]
    there = [cells[name] for name in names if name in cells]
    found = [
        cell.metrics[metric] for cell in there if cell.status == DONE and metric in cell.metrics
    ]
    return found if len(found) == len(there) else []


def _leakage(family: str, estimates: Sequence[Estimate]) -> list[Estimate]:
    if family != "membership":
        return list(estimates)
    return [
        Estimate(
            value=2 * e.value - 1,
            low=2 * e.low - 1,
            high=2 * e.high - 1,
            method=f"2 · AUC − 1, {e.method}",
            count=e.count,
        )
        for e in estimates
    ]


def remedy_findings(found: Sequence[Remedy]) -> list[Finding]:
    """What to do first, and what of the rest does nothing here."""
    if not found:
        return []
    useful = [remedy for remedy in found if remedy.worth > 0]
    idle = [r.title for r in found if r.worth == 0 and r.accuracy is not None]
    if not useful:
        return [
            Finding(
                severity="low",
                title="No remedy that was tried removes measurable leakage",
                text=f"Tried on this model, against attackers who know them: {'; '.join(idle)}.",
                advice="Limit who may ask, and how much.",
            )
        ]
    listed = "; ".join(f"{remedy.title}: {words(remedy)}" for remedy in useful[:3])
    rest = f" Without measurable effect: {'; '.join(idle)}." if idle else ""
    return [
        Finding(
            severity="low",
            title="What helps, as far as it was tried on this model",
            text=f"{listed}.{rest}",
            advice="The table “What to do” has all of it; the attackers there know the remedy.",
        )
    ]


def words(remedy: Remedy) -> str:
    """The measurable effects in points, and what they cost."""
    gains = ", ".join(
        f"{100 * effect.removed.value:.1f} points of {family} less"
        for family, effect in remedy.effects.items()
        if effect.measurable
    )
    lost = 0.0 if remedy.lost is None else 100 * remedy.lost.value
    return f"{gains} for {max(lost, 0.0):.1f} points of accuracy"
