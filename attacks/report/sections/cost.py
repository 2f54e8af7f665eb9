"""What each attack asked, and how long it took."""

from __future__ import annotations

from typing import Final

from attacks.audit.document.records import AuditRecord
from attacks.report.markup import Markup, join
from attacks.report.numbers import duration, size, twin_name
from attacks.report.section import ReportSection
from attacks.report.tables import note, row, table

_INTRO: Final = (
    "Per target. Records are what counts: one request carries many. Bytes and waiting time are "
    "what this audit paid; an answer that another attack had already paid for is reused."
)
_COLUMNS: Final = ("attack", "twin", "records", "requests", "sent", "received", "waiting", "in all")


def _draw(audit: AuditRecord) -> Markup | None:
    rows = [
        row(
            attack.full_title,
            twin_name(twin),
            f"{trial.spent.records:,}",
            f"{trial.spent.requests:,}",
            size(trial.spent.bytes_sent),
            size(trial.spent.bytes_received),
            duration(trial.spent.seconds),
            duration(trial.seconds),
        )
        for attack in audit.attacks
        for twin, trial in attack.done.items()
    ]
    if not rows:
        return None
    return join([note(_INTRO), table("What each attack asked", _COLUMNS, rows)])


SECTION: Final = ReportSection(key="cost", title="What the attacks cost", draw=_draw)
