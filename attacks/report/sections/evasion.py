"""Whether the evaluation of evasion is sound, on every twin."""

from __future__ import annotations

from typing import Final

from attacks.audit.document.records import AuditRecord, SanityCheckRecord
from attacks.report.markup import Markup, join
from attacks.report.numbers import number, twin_name
from attacks.report.section import ReportSection
from attacks.report.tables import bullets, cell, note, row, table


def _draw(audit: AuditRecord) -> Markup | None:
    evasion = audit.evasion
    if evasion is None or not evasion.checks:
        return None
    intro = (
        f"Attacks by evasion moved values by up to {number(evasion.epsilon)}; their success "
        "stands in the table of all attacks. An attack that fails proves nothing by itself, so "
        "these checks ran with them: where one fails, the figures are too kind to the model. "
        "Counts are of targets."
    )
    rows = [
        row(check.title, *(_cell(check, twin) for twin in audit.twins)) for check in evasion.checks
    ]
    columns = ["check", *map(twin_name, audit.twins)]
    parts = [note(intro), table("Sanity checks of evasion, on every twin", columns, rows)]
    notes = [f"{check.title}, {text}" for check in evasion.checks for text in check.notes]
    return join([*parts, bullets(notes)] if notes else parts)


def _cell(check: SanityCheckRecord, twin: str) -> Markup:
    tried, held = check.tried.get(twin, 0), check.held.get(twin, 0)
    if not tried:
        return cell("–")
    if held == tried:
        return cell(f"holds, {held} of {tried}")
    return cell(f"fails, {held} of {tried}", "differs")


SECTION: Final = ReportSection(key="evasion", title="Is the evasion sound?", draw=_draw)
