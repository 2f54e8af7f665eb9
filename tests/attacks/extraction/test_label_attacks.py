"""Lowd–Meek and adaptive retraining: linear models from labels alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from attacks.core.oracle import LABELS, Answer, MeteredOracle, OracleInfo
from attacks.core.records import Records
from attacks.errors import AbilityError, BudgetError, DataSplitError
from attacks.extraction.baseline import no_oracle
from attacks.extraction.learners import PerceptronLearner
from attacks.extraction.setting import ExtractionData
from attacks.extraction.tramer.lowd_meek import LowdMeek
from attacks.extraction.tramer.retraining import AdaptiveRetraining
from tests.attacks.extraction.tramer_targets import Target, regression


def halves(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray(labels > 4)


@pytest.mark.parametrize("data", ["breast_cancer", "digits"])
def test_lowd_meek_agrees_wholly_within_fifty_queries_per_unknown(data: str) -> None:
    target = Target(data, regression(), LABELS, relabel=halves if data == "digits" else _same)
    d = target.oracle.info.features
    result = LowdMeek(queries=50 * (d + 1)).run(
        target.oracle, target.data, np.random.default_rng(1)
    )
    assert result.metrics["fidelity_test"].value == 1
    assert result.metrics["fidelity_uniform"].value == 1
    assert result.spent.records == result.metrics["queries"].value <= 50 * (d + 1)
    assert result.spent.requests < 300
    found = result.artifact.weights[:, 1]
    true = target.estimator.coef_[0]
    np.testing.assert_allclose(
        found / np.linalg.norm(found), true / np.linalg.norm(true), rtol=0, atol=1e-5
    )


def test_lowd_meek_stays_in_its_budget_and_says_what_it_did_not_see() -> None:
    target = Target("breast_cancer", regression(), LABELS)
    attack = LowdMeek(queries=0)
    minimum = attack.minimum_queries(target.oracle.info)
    result = LowdMeek(queries=minimum).run(target.oracle, target.data, np.random.default_rng(1))
    assert result.spent.records <= minimum
    unseen = int(result.metrics["weights_unseen"].value)
    assert (unseen > 0) == bool(result.notes)
    with pytest.raises(BudgetError, match=f"at least {minimum} queries"):
        LowdMeek(queries=minimum - 1).run(target.oracle, target.data, np.random.default_rng(1))


def test_lowd_meek_needs_two_classes_and_sensible_settings() -> None:
    target = Target("iris", regression(), LABELS)
    with pytest.raises(AbilityError, match="two classes"):
        LowdMeek(queries=5000).run(target.oracle, target.data, np.random.default_rng(1))
    with pytest.raises(DataSplitError, match="slacks falling"):
        LowdMeek(queries=5000, slacks=(1e-6, 1e-3))


def test_one_label_only_is_reported() -> None:
    oracle = _Constant()
    data = ExtractionData(
        seeds=Records(inputs=np.zeros((0, 3)), labels=np.zeros(0, dtype=np.int64)),
        pool=np.zeros((0, 3)),
        test=Records(inputs=np.zeros((5, 3)), labels=np.zeros(5, dtype=np.int64)),
        reference=_Constant(),
    )
    with pytest.raises(BudgetError, match="one label only"):
        LowdMeek(queries=1000).run(oracle, data, np.random.default_rng(0))
    assert oracle.ledger.spent.records <= 250
    result = AdaptiveRetraining(queries=40).run(oracle, data, np.random.default_rng(0))
    assert "one label only" in result.notes[0]
    assert result.metrics["fidelity_uniform"].value == 1


def test_adaptive_retraining_needs_827_labels_for_99_percent() -> None:
    target = Target("breast_cancer", regression(), LABELS)
    result = AdaptiveRetraining(queries=827).run(
        target.oracle, target.data, np.random.default_rng(0)
    )
    assert result.metrics["fidelity_test"].value > 0.99
    assert result.metrics["fidelity_uniform"].value > 0.99
    assert (result.spent.records, result.spent.requests) == (827, 10)
    curve = result.curves["fidelity"]
    assert len(curve.x) == 10 and curve.x[-1] == 827 and curve.y[-1] > curve.y[0]
    assert result.baseline["fidelity_uniform"].value < 0.99


def test_adaptive_retraining_beats_as_many_uniform_labels() -> None:
    target = Target("iris", regression(), LABELS, relabel=lambda labels: labels == 2)
    queries = 60
    adaptive = AdaptiveRetraining(queries=queries).run(
        target.oracle, target.data, np.random.default_rng(0)
    )
    records = np.random.default_rng(0).uniform(-1, 1, (queries, 4))
    labels = target.oracle.query(records).labels
    uniform = PerceptronLearner(weight_decay=1e-6).fit(
        Records(inputs=records, labels=labels), 2, np.random.default_rng(0)
    )
    answers = target.data.answers
    assert answers is not None
    agreement = uniform.scores(answers.uniform_inputs).argmax(axis=1) == answers.uniform.labels
    assert adaptive.metrics["fidelity_uniform"].value > agreement.mean()


def test_adaptive_retraining_names_its_minimum() -> None:
    target = Target("breast_cancer", regression(), LABELS)
    with pytest.raises(BudgetError, match="at least 31 queries"):
        AdaptiveRetraining(queries=30).run(target.oracle, target.data, np.random.default_rng(0))
    with pytest.raises(DataSplitError, match="two rounds"):
        AdaptiveRetraining(queries=30, rounds=1)


def test_baseline_learns_from_seeds_alone_and_guesses_without() -> None:
    target = Target("iris", regression(), LABELS)
    model = no_oracle(target.data, np.random.default_rng(0))
    inputs, labels = target.data.seeds.inputs, target.data.seeds.labels
    assert (model.scores(inputs).argmax(axis=1) == labels).mean() > 0.9
    assert target.oracle.ledger.spent.records == 0
    empty = ExtractionData(
        seeds=target.data.seeds.select(slice(0)),
        pool=target.data.pool,
        test=target.data.test,
        reference=target.data.reference,
    )
    assert no_oracle(empty, np.random.default_rng(0)).scores(inputs).shape == (len(inputs), 3)


def _same(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    return labels


class _Constant(MeteredOracle):
    def __init__(self) -> None:
        super().__init__(
            OracleInfo(
                name="constant",
                kind="plaintext",
                input_shape=(3,),
                classes=2,
                low=0.0,
                high=1.0,
                answers=frozenset({LABELS}),
            )
        )

    def _answer(self, records: NDArray[np.float64]) -> Answer:
        return Answer(labels=np.zeros(len(records), dtype=np.int64))
