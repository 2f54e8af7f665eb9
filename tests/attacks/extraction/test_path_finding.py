"""Path finding: every leaf of a tree whose answers tell leaves apart."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from attacks.core.oracle import LABELS
from attacks.errors import AbilityError, BudgetError, DataSplitError
from attacks.extraction.tramer.path_finding import PathFinding
from tests.attacks.extraction.tramer_targets import LeafOracle, Target, regression


def tree_of(data: str, depth: int) -> Target:
    return Target(data, DecisionTreeClassifier(max_depth=depth, random_state=0), oracle=LeafOracle)


@pytest.mark.parametrize(("data", "depth"), [("iris", 3), ("digits", 4)])
def test_all_leaves_are_found_and_the_tree_is_equal(data: str, depth: int) -> None:
    target = tree_of(data, depth)
    result = PathFinding(queries=50_000).run(target.oracle, target.data, np.random.default_rng(0))
    assert result.metrics["leaves"].value == target.estimator.get_n_leaves()
    assert result.metrics["fidelity_test"].value == 1
    assert result.metrics["fidelity_uniform"].value == 1
    assert result.metrics["total_variation_uniform"].value < 1e-9
    assert result.spent.records == result.metrics["queries"].value
    thresholds = target.estimator.tree_.threshold[target.estimator.tree_.feature >= 0]
    sides = result.artifact.high.ravel()
    assert all(np.abs(sides - threshold).min() < 1e-6 for threshold in thresholds)


def test_shared_answers_are_noted_and_mostly_overcome() -> None:
    target = tree_of("breast_cancer", 20)
    result = PathFinding(queries=50_000).run(target.oracle, target.data, np.random.default_rng(0))
    assert any("share their answer" in note for note in result.notes)
    assert result.metrics["fidelity_uniform"].value > 0.95


def test_a_budget_that_ends_early_keeps_the_leaves_found() -> None:
    target = tree_of("digits", 4)
    full = PathFinding(queries=50_000).run(target.oracle, target.data, np.random.default_rng(0))
    early = PathFinding(queries=1500).run(target.oracle, target.data, np.random.default_rng(0))
    assert early.spent.records <= 1500
    assert any("budget ended" in note for note in early.notes)
    assert 1 <= early.metrics["leaves"].value < full.metrics["leaves"].value


def test_what_it_cannot_work_on_is_refused() -> None:
    target = tree_of("iris", 3)
    with pytest.raises(BudgetError, match="at least 9 queries"):
        PathFinding(queries=8).run(target.oracle, target.data, np.random.default_rng(0))
    with pytest.raises(DataSplitError, match="precision"):
        PathFinding(queries=100, precision=0.0)
    labels = Target("iris", regression(), LABELS)
    with pytest.raises(AbilityError, match="logits or probabilities"):
        PathFinding(queries=100).run(labels.oracle, labels.data, np.random.default_rng(0))
