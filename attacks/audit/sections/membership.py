"""Membership inference: can a client tell who was in the training set?

high    AUC of at least 0.6, or a true positive rate of at least 5 % at 1 % false positives, both
        at the lower end of the interval
medium  AUC above 0.5, beyond the interval
ok      no attack does better than a coin
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from attacks.audit.document.records import AttackRecord, AuditRecord, Finding
from attacks.audit.figures.wording import percent, within
from attacks.audit.section import AuditSetting, Section
from attacks.core.entry import MEMBERSHIP
from attacks.oracles.twins import ENCRYPTED

TOLD_APART: Final = 0.6
TOLD_APART_AT_1_PERCENT: Final = 0.05


def _run(setting: AuditSetting, record: AuditRecord) -> AuditRecord:
    attacks = setting.of_family(MEMBERSHIP)
    return setting.with_attacks(record, setting.bench, attacks, setting.answer_trials)


def _findings(record: AuditRecord) -> Iterator[Finding]:
    attacks = [a for a in record.attacks if a.family == MEMBERSHIP and ENCRYPTED in a.done]
    if attacks and record.blind is not None:
        best = max(attacks, key=lambda attack: attack.cells[ENCRYPTED].metrics["auc"].low)
        yield _told_apart(best, record, split_is_sound=record.blind.holds)


def _told_apart(best: AttackRecord, record: AuditRecord, *, split_is_sound: bool) -> Finding:
    metrics = best.cells[ENCRYPTED].metrics
    auc, rate = metrics["auc"], metrics.get("tpr_at_1pct")
    caught = (
        "" if rate is None else f", and finds {percent(rate)} of the members at 1 % false alarms"
    )
    text = f"The strongest attack, {within(best)}, reaches AUC {auc}{caught}."
    advice = (
        f"{_gap(record)}Train with regularisation or fewer epochs until members are answered like "
        "others, or with differential privacy for a guarantee. Encryption cannot help here: the "
        "client decrypts the scores that the attack reads."
    )
    if not split_is_sound:
        text += " The blind baseline fails, so this figure measures the split, not the model."
    if auc.low >= TOLD_APART or (rate is not None and rate.low >= TOLD_APART_AT_1_PERCENT):
        title = "A client can tell who was in the training set"
        return Finding(severity="high", title=title, text=text, advice=advice)
    if auc.low > 0.5:
        title = "Members can be told from others better than by chance"
        return Finding(severity="medium", title=title, text=text, advice=advice)
    return Finding(
        severity="ok",
        title="No membership attack did measurably better than a coin",
        text=text,
        advice="More targets and shadows narrow the intervals and lower the rates that can be "
        "reported.",
    )


def _gap(record: AuditRecord) -> str:
    if ENCRYPTED not in record.model.accuracy:
        return ""
    train = record.model.train_accuracy[ENCRYPTED].value
    test = record.model.accuracy[ENCRYPTED].value
    return f"The model is right on {train:.1%} of its members and {test:.1%} of other records. "


SECTION: Final = Section(run=_run, findings=_findings)
