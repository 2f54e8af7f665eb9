"""What changed from twin to twin: paired differences, the telling ones first."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

from attacks.audit.document.records import (
    AttackRecord,
    AuditRecord,
    PairedDifference,
    is_significant,
)
from attacks.report.markup import Markup, join
from attacks.report.numbers import difference_text, metric_name, twin_name
from attacks.report.section import ReportSection
from attacks.report.tables import figure, folded, note, row, table

_INTRO: Final = (
    "Differences are paired: the same targets, members, records and seeds on both sides. Where "
    "zero lies inside the interval, the audit saw no change; one in twenty lies outside by "
    "chance."
)
_COLUMNS: Final = ("attack", "figure", "from → to", "difference", "zero is")
Pair = tuple[AttackRecord, PairedDifference]


def _draw(audit: AuditRecord) -> Markup | None:
    # An audit makes hundreds: the leading figure of every attack and whatever changed come first.
    leading = {*itertools.pairwise(audit.twins), (audit.twins[0], audit.twins[-1])}
    first: list[Pair] = []
    rest: list[Pair] = []
    for attack in audit.attacks:
        for pair in attack.paired:
            leads = pair.metric == attack.primary and (pair.before, pair.after) in leading
            kept = first if leads or is_significant(pair.difference) else rest
            kept.append((attack, pair))
    if not first and not rest:
        return None
    shown = [note(_INTRO), _table("Later twin minus earlier twin", first)]
    if rest:
        summary = f"Other twins and figures: {len(rest)} differences with zero inside"
        shown.append(folded(summary, _table("Other figures", rest)))
    return join(shown)


def _table(caption: str, pairs: Sequence[Pair]) -> Markup:
    rows = []
    for attack, pair in pairs:
        outside = is_significant(pair.difference)
        rows.append(
            row(
                attack.full_title,
                metric_name(pair.metric),
                f"{twin_name(pair.before)} → {twin_name(pair.after)}",
                figure(difference_text(pair.difference, pair.metric), differs=outside),
                "outside" if outside else "inside",
            )
        )
    return table(caption, _COLUMNS, rows)


SECTION: Final = ReportSection(
    key="differences", title="What changed from twin to twin", draw=_draw
)
