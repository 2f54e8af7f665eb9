"""Torch models and scikit-learn estimators in the clear, and oracles as estimators."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from attacks.core.oracle import LABELS, LOGITS, PROBABILITIES, softmax
from attacks.core.wrappers import Budget, LabelsOnly
from attacks.errors import AbilityError, BudgetError, DataSplitError
from attacks.oracles.estimator import EstimatorOracle, OracleEstimator
from attacks.oracles.plaintext import TorchOracle
from he_infer.datasets import iris


def flowers(*, binary: bool = False) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    data = iris()[0]
    chosen = data.labels < 2 if binary else slice(None)
    return data.features[chosen], data.labels[chosen]


def oracle_of(fitted: Any, answers: frozenset[str] | None = None) -> EstimatorOracle:
    return EstimatorOracle(fitted, name="fitted", low=0.0, high=8.0, answers=answers)


def test_torch_answers_in_float64_from_a_copy() -> None:
    torch.manual_seed(0)
    first_layer, last = nn.Linear(3, 4), nn.Linear(4, 2)
    model = nn.Sequential(first_layer, nn.BatchNorm1d(4), nn.Dropout(0.5), last)
    oracle = TorchOracle(model, name="m", input_shape=(3,), low=0.0, high=1.0)
    records = np.random.default_rng(0).random((5000, 3))
    first = oracle.query(records).require_logits()
    assert model.training and first_layer.weight.dtype == torch.float32
    with torch.no_grad():
        last.weight.zero_()
        changed = copy.deepcopy(model).double().eval()(torch.tensor(records)).numpy()
    assert (oracle.query(records).require_logits() == first).all()
    assert not np.allclose(changed, first)
    # A difference far below float32's resolution changes the answer.
    assert (oracle.query(records + 1e-12).require_logits() != first).any()


def test_torch_float32_is_there_for_who_asks() -> None:
    model = nn.Linear(3, 2)
    single = TorchOracle(model, name="m", input_shape=(3,), low=0.0, high=1.0, dtype=torch.float32)
    answer = single.query(np.random.default_rng(0).random((9, 3))).require_logits()
    assert answer.dtype == np.float64
    assert (answer == answer.astype(np.float32)).all()


def test_one_output_is_two_classes() -> None:
    model = nn.Linear(3, 1)
    oracle = TorchOracle(model, name="m", input_shape=(3,), low=0.0, high=1.0)
    assert oracle.info.classes == 2
    logits = oracle.query(np.random.default_rng(0).random((9, 3))).require_logits()
    assert (logits[:, 0] == 0).all() and (logits[:, 1] != 0).all()


@pytest.mark.parametrize("model", [nn.Linear(5, 2), nn.Flatten(0), nn.Conv1d(3, 2, 1)])
def test_models_that_do_not_fit_are_refused(model: nn.Module) -> None:
    with pytest.raises(DataSplitError):
        TorchOracle(model, name="m", input_shape=(3,), low=0.0, high=1.0)


def test_weights_are_told_apart_by_version() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    first, again = (
        TorchOracle(model, name="m", input_shape=(3,), low=0.0, high=1.0).info for _ in range(2)
    )
    with torch.no_grad():
        model.bias[0] += 1e-3
    other = TorchOracle(model, name="m", input_shape=(3,), low=0.0, high=1.0).info
    assert first == again
    assert other.version != first.version


def test_logistic_regression_answers_decision_values_and_their_softmax() -> None:
    inputs, labels = flowers()
    fitted = LogisticRegression(max_iter=500).fit(inputs, labels)
    oracle = oracle_of(fitted)
    assert oracle.info.answers == {LABELS, LOGITS, PROBABILITIES}
    answer = oracle.query(inputs)
    assert (answer.require_logits() == fitted.decision_function(inputs)).all()
    assert np.allclose(answer.require_probabilities(), softmax(answer.require_logits()))
    assert (answer.labels == fitted.predict(inputs)).all()


def test_binary_logistic_regression_has_two_logits() -> None:
    inputs, labels = flowers(binary=True)
    fitted = LogisticRegression().fit(inputs, labels)
    answer = oracle_of(fitted).query(inputs)
    assert np.allclose(softmax(answer.require_logits()), fitted.predict_proba(inputs))


def test_one_vs_rest_normalises_its_sigmoids() -> None:
    inputs, labels = flowers()
    fitted = OneVsRestClassifier(LogisticRegression()).fit(inputs, labels)
    answer = oracle_of(fitted).query(inputs)
    sigmoids = 1 / (1 + np.exp(-answer.require_logits()))
    expected = sigmoids / sigmoids.sum(axis=1, keepdims=True)
    assert np.allclose(answer.require_probabilities(), expected)
    assert not np.allclose(answer.require_probabilities(), softmax(answer.require_logits()))


def test_an_estimator_answers_what_it_has() -> None:
    inputs, labels = flowers()
    tree = DecisionTreeClassifier(random_state=0).fit(inputs, labels)
    network = MLPClassifier((4,), max_iter=3000, random_state=0).fit(inputs, labels)
    votes = SVC(decision_function_shape="ovo").fit(inputs, labels)
    assert oracle_of(tree).info.answers == {LABELS, PROBABILITIES}
    assert oracle_of(network).info.answers == {LABELS, PROBABILITIES}
    assert oracle_of(tree, frozenset({LABELS})).query(inputs).probabilities is None
    with pytest.raises(AbilityError, match="DecisionTreeClassifier does not answer logits"):
        oracle_of(tree, frozenset({LOGITS}))
    # One decision for each of three pairs is not one for each of three classes.
    assert oracle_of(votes).info.answers == {LABELS}
    votes.set_params(decision_function_shape="ovr")
    assert oracle_of(votes).info.answers == {LABELS, LOGITS}


def test_labels_count_from_zero_whatever_the_classes_are() -> None:
    inputs, labels = flowers()
    names = np.array(["setosa", "versicolor", "virginica"])
    fitted = DecisionTreeClassifier(random_state=0).fit(inputs, names[labels])
    assert (oracle_of(fitted).query(inputs).labels == labels).all()


def test_only_fitted_classifiers() -> None:
    with pytest.raises(DataSplitError, match="expected a fitted classifier"):
        oracle_of(LogisticRegression())


def test_an_oracle_is_a_scikit_learn_estimator_and_every_prediction_is_paid() -> None:
    inputs, labels = flowers()
    fitted = LogisticRegression(max_iter=500).fit(inputs, labels)
    oracle = oracle_of(fitted)
    estimator = OracleEstimator(oracle)
    assert (estimator.predict(inputs) == fitted.predict(inputs)).all()
    assert np.allclose(estimator.predict_proba(inputs), fitted.predict_proba(inputs))
    assert np.allclose(estimator.predict_log_proba(inputs), fitted.predict_log_proba(inputs))
    assert (estimator.decision_function(inputs) == fitted.decision_function(inputs)).all()
    assert oracle.ledger.spent.records == 4 * len(inputs)
    assert clone(estimator).oracle is oracle
    scores = cross_val_score(estimator, inputs, labels, cv=4)
    assert scores.mean() > 0.9
    assert oracle.ledger.spent.records == 5 * len(inputs)


def test_an_estimator_cannot_pass_a_budget_nor_the_shape() -> None:
    inputs, labels = flowers(binary=True)
    fitted = LogisticRegression().fit(inputs, labels)
    estimator = OracleEstimator(Budget(oracle_of(fitted), records=10))
    with pytest.raises(BudgetError):
        clone(estimator).predict(inputs)
    with pytest.raises(DataSplitError):
        estimator.predict(inputs[:3, :2])
    assert estimator.decision_function(inputs[:5]).shape == (5,)
    with pytest.raises(AbilityError):
        OracleEstimator(LabelsOnly(oracle_of(fitted))).predict_proba(inputs[:1])
