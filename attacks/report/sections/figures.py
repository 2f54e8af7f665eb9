"""Everything that was measured, with intervals and methods, and the notes that go with it."""

from __future__ import annotations

from typing import Final

from attacks.audit.document.records import AuditRecord
from attacks.report.markup import Markup, join, tag
from attacks.report.numbers import interval_text, metric_name, twin_name, value_text
from attacks.report.section import ReportSection
from attacks.report.tables import bullets, cell, folded, row, table

_COLUMNS: Final = (
    "attack",
    "twin",
    "figure",
    "value",
    "95 % interval",
    "without queries",
    "method",
)


def _draw(audit: AuditRecord) -> Markup | None:
    rows = [
        row(
            attack.full_title,
            twin_name(twin),
            metric_name(name),
            value_text(estimate.value, name),
            interval_text(estimate, name),
            value_text(trial.baseline[name].value, name) if name in trial.baseline else "–",
            cell(estimate.method, "soft"),
        )
        for attack in audit.attacks
        for twin, trial in attack.done.items()
        for name, estimate in trial.metrics.items()
    ]
    notes = dict.fromkeys(
        f"{attack.full_title}, {twin_name(twin)}: {note}"
        for attack in audit.attacks
        for twin, trial in attack.cells.items()
        for note in trial.notes
    )
    parts = []
    if rows:
        everything = table("Everything that was measured", _COLUMNS, rows)
        parts.append(folded(f"All {len(rows)} figures, with intervals and methods", everything))
    if notes:
        parts += [tag("h3", {}, "Notes"), bullets(list(notes))]
    return join(parts) if parts else None


SECTION: Final = ReportSection(key="figures", title="All figures", draw=_draw)
