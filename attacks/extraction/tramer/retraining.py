"""Adaptive retraining: ask where the model stolen so far is least sure, and learn again.

Tramèr et al. 2016, section 6 ("adaptive retraining"), after Cohn, Atlas and Ladner 1994.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attacks.core.arrays import Floats
from attacks.core.intervals import exact
from attacks.core.oracle import Oracle, OracleInfo
from attacks.core.records import Records
from attacks.core.result import AttackResult
from attacks.errors import DataSplitError
from attacks.extraction.learners import Learner, PerceptronLearner
from attacks.extraction.outcome import ExtractionAttempt
from attacks.extraction.setting import ExtractionData, StolenModel, uniform_inputs

_BISECTIONS: Final = 40
_CANDIDATES: Final = 4  # drawn per record wanted, to find pairs the stolen model tells apart


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveRetraining:
    """Spend ``queries`` labels in ``rounds`` equal parts, one request each.

    The first part is drawn from the box and, where the adversary has a pool, half from the pool;
    every other lies on the boundaries of the model learned before, found by bisection on that
    model, which costs nothing. ``learner``: fits all labels so far; its weight decay has to be
    small, as records on the boundary need steep models. ``run`` raises BudgetError below one
    query per parameter of a linear model or per round.
    """

    queries: int
    rounds: int = 10
    learner: Learner = field(
        default_factory=lambda: PerceptronLearner(weight_decay=1e-6, iterations=500)
    )

    def __post_init__(self) -> None:
        if self.rounds < 2:
            raise DataSplitError(f"adaptive retraining needs two rounds or more, got {self.rounds}")

    def minimum_queries(self, info: OracleInfo) -> int:
        return max(self.rounds, info.features + 1)

    def run(self, oracle: Oracle, data: ExtractionData, rng: np.random.Generator) -> AttackResult:
        info = oracle.info
        attempt = ExtractionAttempt.start("adaptive-retraining", self, oracle, data)
        counts = [len(part) for part in np.array_split(np.arange(self.queries), self.rounds)]
        asked = _draw(info, data.pool, counts[0], rng)
        labels = oracle.query(asked).labels
        stages = []
        model = self._learn(asked, labels, info, rng)
        for count in counts[1:]:
            stages.append((len(labels), model))
            fresh = _on_boundary(model, info, data.pool, count, rng)
            asked = np.concatenate([asked, fresh])
            labels = np.concatenate([labels, oracle.query(fresh).labels])
            model = self._learn(asked, labels, info, rng)
        notes: tuple[str, ...] = ()
        if len(np.unique(labels)) == 1:
            notes = ("the oracle gave one label only: there is no boundary to learn from",)
        return attempt.finish(
            model,
            rng,
            stages=stages,
            learner=self.learner,
            has_logits=False,
            extra={"queries": exact(self.queries, count=1)},
            notes=notes,
        )

    def _learn(
        self,
        inputs: Floats,
        labels: NDArray[np.int64],
        info: OracleInfo,
        rng: np.random.Generator,
    ) -> StolenModel:
        return self.learner.fit(Records(inputs=inputs, labels=labels), info.classes, rng)


def _draw(info: OracleInfo, pool: Floats, count: int, rng: np.random.Generator) -> Floats:
    """(count, *input_shape), half from the pool as far as it reaches, the rest uniform."""
    own = pool[rng.permutation(len(pool))[: count // 2]]
    return np.concatenate([own, uniform_inputs(info, count - len(own), rng)])


def _on_boundary(
    model: StolenModel, info: OracleInfo, pool: Floats, count: int, rng: np.random.Generator
) -> Floats:
    """(count, *input_shape) records between two classes of ``model``.

    Pairs with different labels are drawn as in the first round and bisected. A model that knows
    one class only has no boundary: the records are drawn as in the first round.
    """
    candidates = _draw(info, pool, _CANDIDATES * count, rng)
    labels = model.scores(candidates).argmax(axis=1)
    partners = rng.permutation(len(candidates))
    apart = np.flatnonzero(labels != labels[partners])
    if len(apart) == 0:
        return _draw(info, pool, count, rng)
    chosen = apart[np.arange(count) % len(apart)]
    low, high = candidates[chosen], candidates[partners[chosen]]
    wanted = labels[chosen]
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        stays = model.scores(middle).argmax(axis=1) == wanted
        keep = stays.reshape(-1, *([1] * (middle.ndim - 1)))
        low, high = np.where(keep, middle, low), np.where(keep, high, middle)
    # Pairs used twice would give one record twice: a random part of the way sets them apart.
    again = np.arange(count) >= len(apart)
    away = np.where(again, rng.uniform(0, 0.1, count), 0.0).reshape(keep.shape)
    return np.asarray(low + away * (candidates[chosen] - low))
