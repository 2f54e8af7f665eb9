"""The table that a report is read for: every attack on every twin, side by side."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Final

from attacks.audit.document.records import DONE, AttackRecord, AuditRecord, is_significant
from attacks.core.intervals import Estimate
from attacks.report.markup import Child, Markup, join, tag
from attacks.report.numbers import interval_text, metric_name, queries, twin_name, value_text
from attacks.report.section import ReportSection
from attacks.report.tables import cell, figure, note, row, table

_INTRO: Final = (
    "The same attack, with the same seeds and the same budget, on four forms of the same "
    "targets. Brackets are 95 % intervals. A dot marks a figure that differs from the twin "
    "to its left by more than its paired interval."
)


def _draw(audit: AuditRecord) -> Markup | None:
    model = audit.model
    rows = [
        _accuracy_row(audit, by_twin, label)
        for by_twin, label in (
            (model.accuracy, "accuracy, test records"),
            (model.train_accuracy, "accuracy, own members"),
        )
        if by_twin
    ]
    rows += [_attack_row(audit, attack) for attack in audit.attacks]
    if not rows:
        return None
    columns = ["attack", *map(twin_name, audit.twins)]
    caption = "One row an attack: its figure, interval and queries on each twin"
    parts = [table(caption, columns, rows), note(_INTRO)]
    if audit.blind is not None:
        verdict = "as it must be" if audit.blind.holds else "which voids the membership figures"
        title = tag("strong", {}, "Blind baseline: ")
        parts.append(tag("p", {}, title, f"{audit.blind.note}, {verdict}."))
    return join(parts)


def _accuracy_row(audit: AuditRecord, by_twin: Mapping[str, Estimate], label: str) -> Markup:
    found = [by_twin.get(twin) for twin in audit.twins]
    cells: list[Child] = [
        "–"
        if estimate is None
        else figure(value_text(estimate.value, "accuracy"), interval_text(estimate, "accuracy"))
        for estimate in found
    ]
    return row(label, *cells, sources=["no attack"])


def _attack_row(audit: AuditRecord, attack: AttackRecord) -> Markup:
    changed = {
        pair.after
        for pair in attack.paired
        if pair.metric == attack.primary
        and (pair.before, pair.after) in itertools.pairwise(audit.twins)
        and is_significant(pair.difference)
    }
    cells = [_cell(attack, twin, differs=twin in changed) for twin in audit.twins]
    source = "; ".join(filter(None, (attack.published, attack.reference)))
    metric = "" if attack.primary is None else metric_name(attack.primary)
    return row(attack.title, *cells, sources=[line for line in (source, metric) if line])


def _cell(attack: AttackRecord, twin: str, *, differs: bool) -> Child:
    trial, metric = attack.cells.get(twin), attack.primary
    if trial is None:
        return "–"
    if trial.status != DONE or metric is None:
        return cell(f"{trial.status}: {trial.reason or 'no reason given'}", "refused")
    estimate = trial.metrics[metric]
    return figure(
        value_text(estimate.value, metric),
        interval_text(estimate, metric),
        queries(trial.spent),
        differs=differs,
    )


SECTION: Final = ReportSection(key="twins", title="Every attack on every twin", draw=_draw)
