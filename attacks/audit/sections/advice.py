"""Which remedy removes how much leakage for how much accuracy: from trials to a ranked table.

    leakage of a family    extraction: labels that the copy gives right, on test records
                           membership: 2 · AUC − 1
                           evasion: share of records that are fooled
                           each of the best attack that an adversary who knows the remedy has
    removed                leakage without the remedy − leakage with it, paired over targets
    worth                  Σ removed over the families where it is measurable, in points, for each
                           point of accuracy lost (LEAST_LOST at least)

A remedy whose effect lies within its interval on every family is worth nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from attacks.audit.bench.accuracy import ACCURACY
from attacks.audit.bench.state import TrialName
from attacks.audit.bench.trial import Trial
from attacks.audit.document.records import DONE, AuditRecord, Effect, Finding, RemedyRecord
from attacks.audit.figures.statistics import over_targets, paired_difference
from attacks.audit.section import AuditSetting, Section
from attacks.audit.sections.remedies import NONE, TRIED, Option, measure, options_of
from attacks.catalogue import REMEDIES
from attacks.core.entry import EVASION, EXTRACTION, MEMBERSHIP
from attacks.core.intervals import Estimate

METRIC: Final[Mapping[str, str]] = {
    EXTRACTION: "fidelity_test",
    MEMBERSHIP: "auc",
    EVASION: "success",
}
# Below a tenth of a point, losses of accuracy are noise and would make worths infinite.
LEAST_LOST: Final = 0.001
Trials = Mapping[TrialName, Trial]


def _run(setting: AuditSetting, record: AuditRecord) -> AuditRecord:
    if not setting.wants(REMEDIES):
        return record
    options, targets = list(options_of(setting)), setting.bench.targets
    found = remedies(options, measure(options, setting, targets), targets)
    return dataclasses.replace(record, remedies=found)


def remedies(
    options: Sequence[Option], trials: Trials, targets: Sequence[int]
) -> tuple[RemedyRecord, ...]:
    """Every option but "none": the one that is worth most comes first, those not tried last."""
    found = [_remedy(option, trials, targets) for option in options if option.name != NONE]
    return tuple(sorted(found, key=lambda r: (r.accuracy is None, -r.worth)))


def _remedy(option: Option, trials: Trials, targets: Sequence[int]) -> RemedyRecord:
    effects = {}
    for family in TRIED:
        before = _best(NONE, family, trials, targets)
        after = _best(option.name, family, trials, targets)
        if before is None or after is None:
            continue
        first, second = (_leakage(family, estimates) for _, estimates in (before, after))
        removed = paired_difference(second, first)
        effects[family] = Effect(
            before=over_targets(first),
            after=over_targets(second),
            removed=removed,
            against=after[0],
            measurable=removed.low > 0,
        )
    without, under = (
        _estimates(name, ACCURACY, ACCURACY, trials, targets) for name in (NONE, option.name)
    )
    lost = paired_difference(under, without) if without and under else None
    return RemedyRecord(
        name=option.name,
        title=option.title,
        cost=option.cost,
        effects=effects,
        accuracy=None if lost is None else over_targets(under),
        lost=lost,
        worth=_worth(effects, lost),
        reason=option.reason,
    )


def _worth(effects: Mapping[str, Effect], lost: Estimate | None) -> float:
    """Points of leakage removed for each point of accuracy lost."""
    gains = [effect.removed.value for effect in effects.values() if effect.measurable]
    return sum(gains) / max(0.0 if lost is None else lost.value, LEAST_LOST) if gains else 0.0


def _best(
    option: str, family: str, trials: Trials, targets: Sequence[int]
) -> tuple[str, list[Estimate]] | None:
    """The attack that does best under an option, and its figures by target; None if none ran."""
    found = {
        attack: estimates
        for attack in TRIED[family]
        if (estimates := _estimates(option, attack, METRIC[family], trials, targets))
    }
    if not found:
        return None
    best = max(found, key=lambda attack: sum(e.value for e in found[attack]))
    return best, found[best]


def _estimates(
    option: str, attack: str, metric: str, trials: Trials, targets: Sequence[int]
) -> list[Estimate]:
    """A figure of every target that was tried; empty unless all of them have it."""
    names = [TrialName(twin=option, attack=attack, target=target) for target in targets]
    there = [trials[name] for name in names if name in trials]
    found = [
        trial.metrics[metric] for trial in there if trial.status == DONE and metric in trial.metrics
    ]
    return found if len(found) == len(there) else []


def _leakage(family: str, estimates: Sequence[Estimate]) -> list[Estimate]:
    if family != MEMBERSHIP:
        return list(estimates)
    return [
        dataclasses.replace(
            e,
            value=2 * e.value - 1,
            low=2 * e.low - 1,
            high=2 * e.high - 1,
            method=f"2 · AUC − 1, {e.method}",
        )
        for e in estimates
    ]


def _findings(record: AuditRecord) -> Iterator[Finding]:
    """What to do first, and what of the rest does nothing here."""
    useful = [remedy for remedy in record.remedies if remedy.worth > 0]
    idle = [r.title for r in record.remedies if r.worth == 0 and r.accuracy is not None]
    if useful:
        listed = "; ".join(f"{remedy.title}: {_words(remedy)}" for remedy in useful[:3])
        rest = f" Without measurable effect: {'; '.join(idle)}." if idle else ""
        yield Finding(
            severity="low",
            title="What helps, as far as it was tried on this model",
            text=f"{listed}.{rest}",
            advice="The table “What to do” has all of it; the adversaries there know the remedy.",
        )
    elif record.remedies:
        yield Finding(
            severity="low",
            title="No remedy that was tried removes measurable leakage",
            text=f"Tried on this model, against adversaries who know them: {'; '.join(idle)}.",
            advice="Limit who may ask, and how much.",
        )


def _words(remedy: RemedyRecord) -> str:
    """The measurable effects in points, and what they cost."""
    gains = ", ".join(
        f"{100 * effect.removed.value:.1f} points of {family} less"
        for family, effect in remedy.effects.items()
        if effect.measurable
    )
    lost = 0.0 if remedy.lost is None else 100 * remedy.lost.value
    return f"{gains} for {max(lost, 0.0):.1f} points of accuracy"


SECTION: Final = Section(run=_run, findings=_findings)
