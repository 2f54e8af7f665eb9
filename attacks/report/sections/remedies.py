"""What to do: remedies by leakage removed for each point of accuracy lost."""

from __future__ import annotations

from typing import Final

from attacks.audit.document.records import AuditRecord, Effect, RemedyRecord
from attacks.core.entry import EVASION, EXTRACTION, MEMBERSHIP
from attacks.report.markup import Child, Markup, join
from attacks.report.section import ReportSection
from attacks.report.tables import cell, figure, note, row, table

_FAMILIES: Final = {
    EXTRACTION: "copy, fidelity",
    MEMBERSHIP: "members, 2 · AUC − 1",
    EVASION: "fooled by transfer",
}
_INTRO: Final = (
    "Each remedy was tried on this very model, on targets with the same members and seeds, against "
    "an adversary who knows it and takes the attack that is best against it. Figures are points "
    "before → after; a dot marks those that fell by more than their paired 95 % interval. The "
    "order is by points of leakage removed a point of accuracy lost; losses below 0.1 points "
    "count as 0.1."
)


def _draw(audit: AuditRecord) -> Markup | None:
    if not audit.remedies:
        return None
    columns = ["remedy", *_FAMILIES.values(), "accuracy", "worth", "what it takes"]
    rows = [row(each.title, *_cells(each), cell(each.cost, "soft")) for each in audit.remedies]
    return join([note(_INTRO), table("Remedies, the best first", columns, rows)])


def _cells(remedy: RemedyRecord) -> list[Child]:
    if remedy.accuracy is None or remedy.lost is None:
        why = remedy.reason or "it could not be tried"
        return [cell(f"not tried: {why}", "refused", columns=len(_FAMILIES) + 2)]
    lost = remedy.lost
    accuracy = figure(
        _points(remedy.accuracy.value),
        f"lost {_points(lost.value)} [{_points(lost.low)}, {_points(lost.high)}]",
    )
    effects = (_effect(remedy.effects.get(family)) for family in _FAMILIES)
    return [*effects, accuracy, f"{remedy.worth:.0f}" if remedy.worth else "–"]


def _effect(effect: Effect | None) -> Child:
    if effect is None:
        return "–"
    removed = effect.removed
    return figure(
        f"{_points(effect.before.value)} → {_points(effect.after.value)}",
        f"less by {_points(removed.value)} [{_points(removed.low)}, {_points(removed.high)}]",
        effect.against,
        differs=effect.measurable,
    )


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


SECTION: Final = ReportSection(key="remedies", title="What to do", draw=_draw)
