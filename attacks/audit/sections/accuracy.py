"""How accurate each twin is, beside what it leaks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from attacks.audit.bench.accuracy import ACCURACY, TRAIN_ACCURACY
from attacks.audit.bench.state import TrialName
from attacks.audit.document.records import AuditRecord
from attacks.audit.figures.pooling import pool
from attacks.audit.section import AuditSetting, Section
from attacks.core.intervals import Estimate
from attacks.oracles.twins import TWINS


def _run(setting: AuditSetting, record: AuditRecord) -> AuditRecord:
    trials, targets = setting.answer_trials, setting.bench.targets
    pooled = {
        twin: pool([trials[TrialName(twin=twin, attack=ACCURACY, target=t)] for t in targets])
        for twin in TWINS
    }

    def by_twin(metric: str) -> Mapping[str, Estimate]:
        return {
            twin: trial.metrics[metric] for twin, trial in pooled.items() if metric in trial.metrics
        }

    model = dataclasses.replace(
        record.model, accuracy=by_twin(ACCURACY), train_accuracy=by_twin(TRAIN_ACCURACY)
    )
    return dataclasses.replace(record, model=model)


SECTION: Final = Section(run=_run)
