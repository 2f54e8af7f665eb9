"""Equation solving on scikit-learn's models: exact where the paper says so."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier

from attacks.core.oracle import LABELS, LOGITS, PROBABILITIES, OracleInfo
from attacks.core.result import AttackResult
from attacks.core.wrappers import Rounded
from attacks.errors import AbilityError, BudgetError, DataSplitError
from attacks.extraction.tramer.equation_solving import EquationSolving
from attacks.extraction.tramer.linear import OneVsRest, Softmax, orthogonal_design
from attacks.extraction.tramer.perceptron import Perceptron
from tests.attacks.extraction.tramer_targets import Target, regression


def steal(target: Target, attack: EquationSolving) -> AttackResult:
    return attack.run(target.oracle, target.data, np.random.default_rng(0))


def worst_variation(result: AttackResult) -> float:
    return max(
        result.metrics["total_variation_test"].value,
        result.metrics["total_variation_uniform"].value,
    )


def agrees_wholly(result: AttackResult) -> bool:
    metrics = result.metrics
    return metrics["fidelity_test"].value == metrics["fidelity_uniform"].value == 1


def test_binary_regression_falls_to_d_plus_one_queries_in_one_request() -> None:
    target = Target("breast_cancer", regression(), PROBABILITIES)
    result = steal(target, EquationSolving(family=Softmax(), queries=31))
    assert agrees_wholly(result) and worst_variation(result) < 1e-9
    assert (result.spent.records, result.spent.requests) == (31, 1)
    assert result.metrics["unknowns"].value == 31 and result.notes == ()
    assert set(result.baseline) >= {"fidelity_test", "fidelity_uniform"}
    found = result.artifact.weights[:, 1] - result.artifact.weights[:, 0]
    np.testing.assert_allclose(found, target.estimator.coef_[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("data", ["iris", "digits"])
def test_softmax_and_one_vs_rest_fall_to_a_query_per_unknown(data: str) -> None:
    for family, estimator in (
        (Softmax(), regression()),
        (OneVsRest(), OneVsRestClassifier(regression())),
    ):
        target = Target(data, estimator, PROBABILITIES)
        unknowns = family.unknowns(target.oracle.info)
        result = steal(target, EquationSolving(family=family, queries=unknowns))
        assert agrees_wholly(result) and worst_variation(result) < 1e-7
        assert result.spent.records == unknowns
        assert "max_logit_error" not in result.metrics  # the oracle gives no logits


def test_logits_give_any_linear_model_to_d_plus_one_queries_with_its_offsets() -> None:
    for family, estimator in (
        (Softmax(), regression()),
        (OneVsRest(), OneVsRestClassifier(regression())),
    ):
        target = Target("iris", estimator, LOGITS)
        attack = EquationSolving(family=family, queries=5)
        assert attack.minimum_queries(target.oracle.info) == 5
        result = steal(target, attack)
        assert result.metrics["max_logit_error"].value < 1e-10
        assert result.metrics["max_logit_error"].method == "maximum"
        assert result.metrics["logit_error_bits"].value > 33


def test_curve_has_the_smaller_budgets_and_no_further_queries() -> None:
    target = Target("iris", regression(), PROBABILITIES)
    result = steal(target, EquationSolving(family=Softmax(), queries=15))
    assert result.curves["fidelity"].x == (5.0, 10.0, 15.0)
    assert target.oracle.ledger.spent.records == 15
    chosen = steal(target, EquationSolving(family=Softmax(), queries=15, sweep=(7,)))
    assert chosen.curves["fidelity"].x == (7.0, 15.0)


def test_rounded_answers_degrade_and_are_noted() -> None:
    target = Target("iris", regression(), PROBABILITIES)
    attack = EquationSolving(family=Softmax(), queries=15)
    result = attack.run(Rounded(target.oracle, decimals=2), target.data, np.random.default_rng(0))
    assert "rounded to 2 decimals" in result.notes[0]
    assert 1e-6 < worst_variation(result) < 0.05
    assert result.metrics["fidelity_test"].value > 0.9


@pytest.mark.parametrize("multiple", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_perceptron_of_iris_is_stolen(multiple: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the target need not have converged
        target = Target(
            "iris",
            MLPClassifier((20,), activation="tanh", max_iter=1000, random_state=0),
            PROBABILITIES,
        )
    family = Perceptron(hidden=(20,), iterations=600)
    assert family.unknowns(target.oracle.info) == 163
    result = steal(target, EquationSolving(family=family, queries=163 * multiple))
    floor = 0.999 if multiple == 5 else 0.98
    assert result.metrics["fidelity_test"].value >= floor
    assert result.metrics["fidelity_uniform"].value >= floor


@pytest.mark.slow
@pytest.mark.parametrize("data", ["digits", "breast_cancer"])
def test_perceptron_falls_to_five_queries_per_unknown(data: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target = Target(
            data,
            MLPClassifier((20,), activation="tanh", max_iter=1000, random_state=0),
            PROBABILITIES,
        )
    family = Perceptron(hidden=(20,))
    queries = 5 * family.unknowns(target.oracle.info)
    result = steal(target, EquationSolving(family=family, queries=queries))
    assert result.metrics["fidelity_test"].value >= 0.999
    assert result.metrics["fidelity_uniform"].value >= 0.999


def test_rounded_perceptron_answers_are_fitted_by_cross_entropy() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target = Target(
            "iris",
            MLPClassifier((20,), activation="tanh", max_iter=1000, random_state=0),
            PROBABILITIES,
        )
    attack = EquationSolving(family=Perceptron(iterations=300), queries=400)
    result = attack.run(Rounded(target.oracle, decimals=1), target.data, np.random.default_rng(0))
    assert any("rounded to 1 decimals" in note for note in result.notes)
    assert result.metrics["fidelity_test"].value > 0.9


def test_a_model_outside_the_family_is_noted() -> None:
    target = Target("iris", OneVsRestClassifier(regression()), PROBABILITIES)
    result = steal(target, EquationSolving(family=Softmax(), queries=60))
    assert any("do not fit the supposed family" in note for note in result.notes)


def test_labels_are_not_enough_and_nothing_is_spent() -> None:
    target = Target("iris", regression(), LABELS)
    with pytest.raises(AbilityError, match="answers labels"):
        steal(target, EquationSolving(family=Softmax(), queries=15))
    assert target.oracle.ledger.spent.records == 0


def test_too_small_a_budget_names_the_minimum_and_spends_nothing() -> None:
    target = Target("iris", regression(), PROBABILITIES)
    for attack, minimum in (
        (EquationSolving(family=Softmax(), queries=4), 5),
        (EquationSolving(family=OneVsRest(), queries=7), 8),
        (EquationSolving(family=Perceptron(), queries=81), 82),
        (EquationSolving(family=Softmax(), queries=15, sweep=(3,)), 5),
    ):
        assert attack.minimum_queries(target.oracle.info) == minimum
        with pytest.raises(BudgetError, match=f"at least {minimum} queries"):
            steal(target, attack)
    assert target.oracle.ledger.spent.records == 0


def test_a_reference_of_another_shape_is_refused() -> None:
    target, other = (Target(d, regression(), PROBABILITIES) for d in ("iris", "digits"))
    attack = EquationSolving(family=Softmax(), queries=15)
    with pytest.raises(DataSplitError, match="same target twice"):
        attack.run(target.oracle, other.data, np.random.default_rng(0))


def test_a_perceptron_without_layers_is_refused() -> None:
    with pytest.raises(DataSplitError, match="hidden layers"):
        Perceptron(hidden=())


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (-3.0, 8.0)])
def test_design_fills_the_box_and_is_well_conditioned(low: float, high: float) -> None:
    info = OracleInfo(
        name="box",
        kind="plaintext",
        input_shape=(4, 4),
        classes=3,
        low=low,
        high=high,
        answers=frozenset({LABELS}),
    )
    records = orthogonal_design(info, 40, np.random.default_rng(3))
    assert records.shape == (40, 4, 4)
    assert records.min() >= low and records.max() <= high
    unit = (records[:17].reshape(17, 16) - (low + high) / 2) / ((high - low) / 2)
    assert np.linalg.cond(np.concatenate([unit, np.ones((17, 1))], axis=1)) < 10
