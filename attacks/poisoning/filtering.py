"""A filter between the poison and the learner, measured.

    poisoned set ──train──► network ──features──► filter ──keep──► trained again ──► success left

The defender does not know which records are poison; ``removal`` does, and says what the filter took
from either side. Every figure stands beside the same network's without the filter.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attacks.core.records import Records
from attacks.core.result import AttackResult
from attacks.defences.outliers import RecordFilter
from attacks.poisoning.frogs_transfer import Frogs, FrozenFeatures
from attacks.poisoning.networks import HeadTraining, Network, NetworkLearner, train_heads
from attacks.poisoning.outcome import SUCCESS, Comparison, Crafted, compare, share
from attacks.poisoning.setting import PoisoningData, PoisoningReport, removal


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InFeatures:
    """``filter`` on what the last layer of ``network``, trained on the poison itself, reads."""

    filter: RecordFilter
    network: Network

    def fit(self, records: Records) -> NDArray[np.bool_]:
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
    about = Comparison(
        attack=attack,
        learner=learner.name,
        seconds=time.perf_counter() - start,
        extra=removal(keep, crafted.training.is_poison),
    )
    return compare(network, undefended, crafted, data, about)


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
    clean, poison = extractor.of(frogs.training.inputs), extractor.of(frogs.poison.inputs)
    aims = extractor.of(frogs.targets.inputs)
    keeps, labels = [], []
    for row, label in zip(poison, frogs.poison.labels, strict=True):
        wanted = np.append(frogs.training.labels, label)
        given = Records(inputs=np.concatenate([clean, row[None]]), labels=wanted)
        keeps.append(record_filter.fit(given))
        labels.append(wanted)
    keep, given_labels = np.stack(keeps), np.stack(labels)  # (T, N + 1)
    taken = np.zeros(len(poison), dtype=np.bool_)
    # Sets of one size are trained together.
    counts = keep.sum(axis=1)
    for count in np.unique(counts):
        rows = np.flatnonzero(counts == count)
        kept = [np.flatnonzero(keep[row]) for row in rows]
        features = np.stack(
            [
                np.concatenate([clean, poison[row][None]])[mine]
                for row, mine in zip(rows, kept, strict=True)
            ]
        )
        wanted = np.stack([given_labels[row][mine] for row, mine in zip(rows, kept, strict=True)])
        heads = train_heads(features, wanted, classes=classes, training=training)
        taken[rows] = heads.predict(aims[rows, None])[:, 0] == frogs.poison.labels[rows]
    is_poison = np.zeros_like(keep)
    is_poison[:, -1] = True
    return PoisoningReport(
        attack="poison frogs, one shot, filtered",
        learner=f"a layer on {extractor.description}",
        primary=SUCCESS,
        metrics={SUCCESS: share(taken), **removal(keep.ravel(), is_poison.ravel())},
        seconds=time.perf_counter() - start,
    ).result()
