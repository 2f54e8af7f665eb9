"""Records for tests: an audit that measured nothing, and attacks on made-up twins."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from attacks.audit.document.records import (
    DONE,
    AttackRecord,
    AuditRecord,
    ModelRecord,
    PairedDifference,
    PooledTrial,
    is_significant,
)
from attacks.core.intervals import Estimate
from attacks.core.threat import ThreatModel
from attacks.oracles.twins import TWINS

EMPTY = AuditRecord(
    project_version="0.0.0",
    created="2020-01-01T00:00:00+00:00",
    command="he-infer audit",
    duration_s=1.0,
    model=ModelRecord(
        name="made-up",
        input_shape=(2,),
        classes=2,
        parameters=1,
        accuracy={},
        train_accuracy={},
    ),
    data={},
    config={},
    seeds={},
    versions={},
    machine="made up",
    plan={},
    twins=TWINS,
    threat_models=(),
    game="",
)


def record(**fields: Any) -> AuditRecord:
    """The empty audit with some fields filled."""
    return dataclasses.replace(EMPTY, **fields)


def attack(
    name: str,
    family: str,
    cells: Mapping[str, PooledTrial],
    *,
    primary: str,
    paired: Sequence[PairedDifference] = (),
    threat_model: str = ThreatModel.MALICIOUS_CLIENT,
) -> AttackRecord:
    done = any(trial.status == DONE for trial in cells.values())
    return AttackRecord(
        name=name,
        title=name.title(),
        family=family,
        reference="",
        threat_model=threat_model,
        needs="",
        primary=primary if done else None,
        cells=cells,
        paired=tuple(paired),
    )


def difference(before: str, after: str, metric: str, value: Estimate) -> PairedDifference:
    return PairedDifference(
        before=before,
        after=after,
        metric=metric,
        difference=value,
        significant=is_significant(value),
    )
