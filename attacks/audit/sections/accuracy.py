"""How accurate each twin is, beside what it leaks."""

from __future__ import annotations

import dataclasses
from typing import Final

from attacks.audit.bench.accuracy import ACCURACY, TRAIN_ACCURACY
from attacks.audit.bench.state import TrialName
from attacks.audit.document.records import DONE, AuditRecord
from attacks.audit.figures.pooling import pool
from attacks.audit.section import AuditSetting, Section
from attacks.oracles.twins import TWINS


def _run(setting: AuditSetting, record: AuditRecord) -> AuditRecord:
    trials, targets = setting.answer_trials, setting.bench.targets
    pooled = {
        twin: pool([trials[TrialName(twin=twin, attack=ACCURACY, target=t)] for t in targets])
        for twin in TWINS
    }

    done = {twin: trial.metrics for twin, trial in pooled.items() if trial.status == DONE}
    model = dataclasses.replace(
        record.model,
        accuracy={twin: metrics[ACCURACY] for twin, metrics in done.items()},
        train_accuracy={twin: metrics[TRAIN_ACCURACY] for twin, metrics in done.items()},
    )
    return dataclasses.replace(record, model=model)


SECTION: Final = Section(run=_run)
