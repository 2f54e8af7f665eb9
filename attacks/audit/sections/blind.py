"""The blind baseline: can members be told from others without asking the model at all?

It is pooled over targets, since the split of one model says little. If it succeeds, the split
itself leaks, and no membership figure of the audit means anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from attacks.audit.bench.state import TrialName
from attacks.audit.bench.trial import Trial
from attacks.audit.document.codec import from_json, to_json
from attacks.audit.document.records import DONE, AuditRecord, BlindRecord, Finding
from attacks.audit.figures.resampling import resample_twins
from attacks.audit.figures.wording import sentence
from attacks.audit.section import AuditSetting, Section
from attacks.core.entry import MEMBERSHIP
from attacks.core.roc import auc
from attacks.membership.blind import BlindBaseline
from attacks.membership.outcome import MembershipScores

NOBODY: Final = "nobody"  # the twin that a blind adversary asks
BLIND: Final = "blind"


def _run(setting: AuditSetting, record: AuditRecord) -> AuditRecord:
    if not setting.of_family(MEMBERSHIP):
        return record
    found = []
    for done, target in enumerate(setting.bench.targets, start=1):
        found.append(_scores(setting, target))
        setting.runner.progress("blind baseline", done, len(setting.bench.targets))
    rng = np.random.default_rng([setting.config.seed, 4])
    return dataclasses.replace(record, blind=judge_blind(found, rng))


def _scores(setting: AuditSetting, target: int) -> MembershipScores:
    """Of every record of the pool, from the audit's state if they are there."""
    name = TrialName(twin=NOBODY, attack=BLIND, target=target)
    saved = setting.runner.store.load(name)
    if saved is not None and (kept := from_json(Trial, saved, str(name)).scored) is not None:
        return kept
    # One stream for all targets, so that each is judged on the same records.
    rng = np.random.default_rng([setting.config.seed, 3])
    pool, members = setting.subject.split.pool, setting.bench.masks[target]
    scored = BlindBaseline().scores(pool, members, rng)
    figure = auc(scored.scores, scored.is_member)
    trial = Trial(status=DONE, primary="auc", metrics={"auc": figure}).with_scores(scored)
    setting.runner.store.save(name, to_json(trial))
    return scored


def judge_blind(found: Sequence[MembershipScores], rng: np.random.Generator) -> BlindRecord:
    """The verdict on one or more targets."""
    if len(found) > 1:
        figure = resample_twins({NOBODY: found}, rng).metrics(NOBODY)["auc"]
    else:
        figure = auc(found[0].scores, found[0].is_member)
    if figure.low <= 0.5:
        note = f"a classifier that never asks the model gets AUC {figure}: no better than a coin"
        return BlindRecord(auc=figure, holds=True, note=note)
    note = (
        f"the split leaks: a classifier that never asks the model tells members from "
        f"non-members with AUC {figure}, so no membership figure of this audit means anything"
    )
    return BlindRecord(auc=figure, holds=False, note=note)


def _findings(record: AuditRecord) -> Iterator[Finding]:
    if record.blind is not None and not record.blind.holds:
        yield Finding(
            severity="high",
            title="The split leaks by itself",
            text=sentence(record.blind.note),
            advice="Draw members and non-members from the same records at random.",
        )


SECTION: Final = Section(run=_run, findings=_findings)
