"""scikit-learn targets behind oracles, and what an adversary on them is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from attacks.core.oracle import LABELS, PROBABILITIES, Answer, MeteredOracle, OracleInfo
from attacks.core.records import Records
from attacks.extraction.setting import ExtractionData, ReferenceAnswers
from attacks.oracles.estimator import EstimatorOracle

SEEDS = 30


class Target:
    """A trained estimator on [−1, 1]^d, a fresh oracle to it, and the setting of an attack."""

    def __init__(
        self,
        data: str,
        estimator: Any,
        *answers: str,
        oracle: Callable[[Any], MeteredOracle] | None = None,
        relabel: Callable[[NDArray[Any]], NDArray[Any]] = lambda labels: labels,
    ) -> None:
        bunch = getattr(datasets, f"load_{data}")()
        low, high = bunch.data.min(axis=0), bunch.data.max(axis=0)
        inputs = 2 * (bunch.data - low) / np.where(high > low, high - low, 1.0) - 1
        labels = relabel(bunch.target).astype(np.int64)
        train, test, train_labels, test_labels = train_test_split(
            inputs, labels, test_size=0.3, random_state=0, stratify=labels
        )
        self.estimator = estimator.fit(train, train_labels)
        build = oracle or (
            lambda fitted: EstimatorOracle(
                fitted, name=data, low=-1.0, high=1.0, answers=frozenset({*answers, LABELS})
            )
        )
        self.oracle = build(self.estimator)
        unpaid = ExtractionData(
            seeds=Records(inputs=train[:SEEDS], labels=train_labels[:SEEDS]),
            pool=train[SEEDS:],
            test=Records(inputs=test, labels=test_labels),
            reference=build(self.estimator),
        )
        self.data = ExtractionData(
            seeds=unpaid.seeds,
            pool=unpaid.pool,
            test=unpaid.test,
            reference=unpaid.reference,
            answers=ReferenceAnswers.of(unpaid, np.random.default_rng(0), 2000),
        )


def regression() -> LogisticRegression:
    return LogisticRegression(max_iter=5000)


class LeafOracle(MeteredOracle):
    """A tree that answers Laplace's estimate of its leaf, which hardly two leaves share."""

    def __init__(self, tree: Any) -> None:
        self._tree = tree
        super().__init__(
            OracleInfo(
                name="tree",
                kind="plaintext",
                input_shape=(tree.n_features_in_,),
                classes=len(tree.classes_),
                low=-1.0,
                high=1.0,
                answers=frozenset({PROBABILITIES, LABELS}),
            )
        )

    def _answer(self, records: NDArray[np.float64]) -> Answer:
        inner = self._tree.tree_
        leaves = self._tree.apply(records)
        shares = inner.value[leaves][:, 0]
        counts = inner.n_node_samples[leaves][:, None]
        votes = shares / shares.sum(axis=1, keepdims=True) * counts
        return Answer.of_probabilities((votes + 1) / (counts + shares.shape[1]))
