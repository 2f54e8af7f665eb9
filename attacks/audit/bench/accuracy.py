"""The owner's own question to a target: how accurate is it? It runs like an attack."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attacks.core.entry import ANYTHING, CatalogueEntry
from attacks.core.intervals import Estimate, clopper_pearson
from attacks.core.oracle import Oracle
from attacks.core.records import Records
from attacks.core.result import AttackResult
from attacks.core.threat import ThreatModel

ACCURACY: Final = "accuracy"
TRAIN_ACCURACY: Final = "train_accuracy"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AccuracyData:
    """``test``: held out; ``pool`` with ``is_member``: what was trained on, and what was not."""

    test: Records
    pool: Records
    is_member: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Asks about the test records and the members, as the owner would."""

    def run(self, oracle: Oracle, data: AccuracyData, rng: np.random.Generator) -> AttackResult:
        """Metrics "accuracy" on the test records and "train_accuracy" on the members."""
        del rng
        start, before = time.perf_counter(), oracle.ledger.spent
        # All at once, the pool too: membership attacks ask it again and reuse the answers.
        labels = oracle.query(np.concatenate([data.test.inputs, data.pool.inputs])).labels
        tested, pooled = np.split(labels, [len(data.test)])
        members = pooled[data.is_member] == data.pool.labels[data.is_member]
        return AttackResult(
            attack=ACCURACY,
            oracle=oracle.info.name,
            threat_model=ThreatModel.NONE,
            primary=ACCURACY,
            metrics={
                ACCURACY: _share(tested == data.test.labels),
                TRAIN_ACCURACY: _share(members),
            },
            spent=oracle.ledger.spent - before,
            seconds=time.perf_counter() - start,
        )


def _share(right: NDArray[np.bool_]) -> Estimate:
    return clopper_pearson(int(np.count_nonzero(right)), len(right))


ENTRY: Final = CatalogueEntry(
    title="Accuracy",
    family=ACCURACY,
    reference="",
    threat_model=ThreatModel.NONE,
    needs=ANYTHING,
    build=lambda _: Accuracy(),
)
