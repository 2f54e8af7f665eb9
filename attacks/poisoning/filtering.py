"""A filter between the poison and the learner, measured.

    poisoned set ──train──► network ──features──► filter ──keep──► trained again ──► success left

The defender does not know which records are poison. The evaluator does, and ``removal`` says what
the filter took of poison and of clean records. Every figure stands beside that of the network
without the filter.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from attacks.core.arrays import Bools
from attacks.core.oracle import Spent
from attacks.core.records import Records
from attacks.core.result import AttackResult
from attacks.core.threat import ThreatModel
from attacks.defences.outliers import RecordFilter
from attacks.poisoning.frogs_transfer import Frogs, FrozenFeatures
from attacks.poisoning.networks import HeadTraining, Network, NetworkLearner, train_heads
from attacks.poisoning.outcome import SUCCESS, Crafted, compare, share
from attacks.poisoning.setting import PoisoningData, removal


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InFeatures:
    """``filter`` on what the last layer of ``network``, trained on the poison itself, reads."""

    filter: RecordFilter
    network: Network

    def fit(self, records: Records) -> Bools:
        """(B,) True for what is kept; errors as the filter's."""
        features = self.network.features(records.inputs)
        return self.filter.fit(Records(inputs=features, labels=records.labels))


def filtered(
    attack: str,
    crafted: Crafted,
    undefended: Network,
    record_filter: RecordFilter,
    learner: NetworkLearner,
    data: PoisoningData,
    rng: np.random.Generator,
) -> AttackResult:
    """Filter the poisoned set, train again, and compare with ``undefended``, the network that was
    trained on all of it, whose figures are the baseline.

    Beside the usual metrics ``poison_removed`` and ``clean_removed``. Errors as the filter's and
    the learner's.
    """
    start = time.perf_counter()
    keep = record_filter.fit(crafted.training.records)
    network = learner.fit(crafted.training.kept(keep), rng)
    return compare(
        network,
        undefended,
        crafted,
        data,
        attack=attack,
        learner=learner.description,
        started=start,
        extra=removal(keep, crafted.training.is_poison),
    )


def filtered_frogs(
    frogs: Frogs,
    extractor: FrozenFeatures,
    record_filter: RecordFilter,
    training: HeadTraining,
    *,
    classes: int,
) -> AttackResult:
    """The same for poison that comes alone: each training set is filtered, in the extractor's
    features, with its one poison in it, and a head is trained on what is left.

    ``poison_success``, ``poison_removed``: over targets. ``clean_removed``: over all records.
    """
    start = time.perf_counter()
    features, labels = frogs.sets(extractor)
    aims = extractor.of(frogs.targets.inputs)
    keep = np.stack(
        [
            record_filter.fit(Records(inputs=given, labels=wanted))
            for given, wanted in zip(features, labels, strict=True)
        ]
    )  # (T, N + 1)
    taken = np.zeros(len(keep), dtype=np.bool_)
    # Sets of one size are trained together.
    counts = keep.sum(axis=1)
    for count in np.unique(counts):
        rows = np.flatnonzero(counts == count)
        heads = train_heads(
            np.stack([features[row][keep[row]] for row in rows]),
            np.stack([labels[row][keep[row]] for row in rows]),
            classes=classes,
            training=training,
        )
        taken[rows] = heads.predict(aims[rows, None])[:, 0] == frogs.poison.labels[rows]
    is_poison = np.zeros_like(keep)
    is_poison[:, -1] = True
    return AttackResult(
        attack="poison frogs, one shot, filtered",
        oracle=f"a layer on {extractor.description}",
        threat_model=ThreatModel.TRAINING_TIME_ADVERSARY,
        primary=SUCCESS,
        metrics={SUCCESS: share(taken), **removal(keep.ravel(), is_poison.ravel())},
        spent=Spent(),
        seconds=time.perf_counter() - start,
    )
