"""Poisoned training sets: the same poison on every twin."""

from __future__ import annotations

from typing import Final

from attacks.audit.document.records import AuditRecord, PoisoningRecord
from attacks.core.intervals import Estimate
from attacks.report.markup import Markup, join
from attacks.report.numbers import interval_text, twin_name, value_text
from attacks.report.section import ReportSection
from attacks.report.tables import bullets, cell, figure, note, row, table

# Other poisons have no name of their own.
_PUBLISHED: Final = {"backdoor": "BadNets"}
_INTRO: Final = (
    "A network with the first target's members, recipe and seed was trained again on poisoned "
    "records, and each of its forms was asked the same questions as the target itself. Brackets "
    "are 95 % intervals; the figure without poison stands below."
)


def _draw(audit: AuditRecord) -> Markup | None:
    if not audit.poisoning:
        return None
    rows = [each for check in audit.poisoning for each in _rows(check, audit.twins)]
    notes = [f"{check.title}: {text}" for check in audit.poisoning for text in check.notes]
    columns = ["poison", "figure", *map(twin_name, audit.twins)]
    drawn = table("Poisoned training sets, on every twin", columns, rows)
    return join([note(_INTRO), drawn, bullets(notes)])


def _rows(check: PoisoningRecord, twins: tuple[str, ...]) -> tuple[Markup, Markup]:
    published = _PUBLISHED.get(check.name)
    sources = [
        *([] if published is None else [published]),
        f"{100 * check.share:.3g} % of the records",
        f"{check.threat_model}; {check.reference}",
    ]
    figures = [check.figures.get(twin) for twin in twins]
    success = [
        cell("–") if f is None else _cell(f.poison_success, f.clean_poison_success) for f in figures
    ]
    accuracy = [cell("–") if f is None else _cell(f.accuracy, f.clean_accuracy) for f in figures]
    return (
        row(check.title, "success", *success, sources=sources),
        row(check.title, "accuracy, test records", *accuracy, sources=sources),
    )


def _cell(after: Estimate, before: Estimate) -> Markup:
    return figure(
        value_text(after.value, "accuracy"),
        interval_text(after, "accuracy"),
        f"without poison {value_text(before.value, 'accuracy')}",
    )


SECTION: Final = ReportSection(key="poisoning", title="Poisoned training sets", draw=_draw)
