"""Substitute networks: Papernot's augmentation, and knockoff nets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from attacks.core.oracle import LABELS, LOGITS, OracleInfo
from attacks.core.records import Records
from attacks.errors import BudgetError, DataSplitError
from attacks.extraction.knockoff import Knockoff
from attacks.extraction.papernot import PapernotSubstitute, Reservoir
from attacks.extraction.setting import ExtractionData
from attacks.extraction.substitute import (
    Perceptron,
    SmallConvolution,
    Substitute,
    SubstituteTraining,
    one_hot,
    train_substitute,
)
from he_infer import datasets
from tests.attacks.extraction.square_networks import FunctionOracle

_CENTRES = np.array([[0.25, 0.25], [0.75, 0.75], [0.25, 0.75]])


def _nearest(inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits of a target that names the nearest of three centres."""
    result: NDArray[np.float64] = -8 * np.sum((inputs[:, None] - _CENTRES) ** 2, axis=2)
    return result


def _oracle(answers: frozenset[str] = frozenset({LOGITS, LABELS})) -> FunctionOracle:
    return FunctionOracle(_nearest, features=2, classes=3, low=0.0, high=1.0, answers=answers)


def _data() -> ExtractionData:
    rng = np.random.default_rng(0)
    inputs = rng.uniform(0, 1, (1500, 2))
    records = Records(inputs=inputs, labels=_nearest(inputs).argmax(axis=1).astype(np.int64))
    return ExtractionData(
        seeds=records.select(slice(0, 12)),
        pool=inputs[12:512],
        test=records.select(slice(512, None)),
        reference=_oracle(),
    )


def test_papernot_doubles_with_labels_only() -> None:
    oracle = _oracle(frozenset({LABELS}))
    attack = PapernotSubstitute(queries=96, seeds=12, step=0.1, training=_training(20))
    result = attack.run(oracle, _data(), np.random.default_rng(1))
    # 12 seeds doubled three times; each record is asked once, and rounds are single requests.
    assert (result.spent.records, result.spent.requests) == (96, 4)
    assert result.curves["fidelity"].x == (12.0, 24.0, 48.0, 96.0)
    # Guessing the commonest class is right less than half the time.
    assert result.figure.low > 0.5
    assert "max_logit_error" not in result.metrics
    # A move by 0.3 crosses a border from nearly everywhere in the unit square.
    assert result.metrics["transfer"].value > 0.5
    assert "fidelity_test" in result.baseline


def test_papernot_is_deterministic_and_leaves_torchs_generator_alone() -> None:
    attack = PapernotSubstitute(queries=24, seeds=12, training=_training(5))
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    data, points = _data(), np.random.default_rng(2).uniform(0, 1, (50, 2))
    results = [attack.run(_oracle(), data, np.random.default_rng(3)) for _ in range(2)]
    assert torch.rand(1) == expected
    first, second = (result.artifact.scores(points) for result in results)
    assert np.array_equal(first, second)


def test_a_reservoir_bounds_growth_and_the_budget_is_spent_exactly() -> None:
    attack = PapernotSubstitute(
        queries=50,
        seeds=12,
        step_period=1,
        reservoir=Reservoir(after=1, size=10),
        training=_training(2),
    )
    result = attack.run(_oracle(), _data(), np.random.default_rng(4))
    assert result.curves["fidelity"].x == (12.0, 24.0, 34.0, 44.0, 50.0)
    assert result.spent.records == 50


def test_papernot_refuses() -> None:
    data = _data()
    with pytest.raises(BudgetError, match="at least 100"):
        PapernotSubstitute(queries=50).run(_oracle(), data, np.random.default_rng(0))
    with pytest.raises(DataSplitError, match="fewer seeds"):
        PapernotSubstitute(seeds=600).run(_oracle(), data, np.random.default_rng(0))
    with pytest.raises(DataSplitError):
        PapernotSubstitute(step=0.0)
    with pytest.raises(DataSplitError):
        PapernotSubstitute(step_period=0)


def test_knockoff_learns_from_the_pool_in_one_request() -> None:
    oracle = _oracle()
    attack = Knockoff(queries=400, curve_points=2, training=_training(30))
    result = attack.run(oracle, _data(), np.random.default_rng(5))
    assert (result.spent.records, result.spent.requests) == (400, 1)
    assert result.curves["fidelity"].x == (100.0, 200.0, 400.0)
    assert result.figure.low > 0.9
    assert result.notes == ("trained on probabilities",)


def test_knockoff_takes_labels_where_there_is_nothing_else() -> None:
    attack = Knockoff(queries=300, curve_points=0, training=_training(30))
    result = attack.run(_oracle(frozenset({LABELS})), _data(), np.random.default_rng(6))
    assert result.figure.low > 0.85
    assert result.notes == ("trained on labels only",)


def test_knockoff_needs_a_pool_as_large_as_its_budget() -> None:
    oracle = _oracle()
    with pytest.raises(BudgetError, match="500"):
        Knockoff(queries=501).run(oracle, _data(), np.random.default_rng(0))
    assert oracle.ledger.spent.records == 0


def test_gradients_agree_with_differences() -> None:
    substitute = _substitute()
    point, label = np.array([[0.4, 0.55]]), np.array([1])

    def log_probability(at: NDArray[np.float64]) -> float:
        scores = substitute.scores(at)[0]
        return float(scores[1] - np.log(np.exp(scores).sum()))

    numeric = [
        (log_probability(point + step) - log_probability(point - step)) / 2e-3
        for step in 1e-3 * np.eye(2)[:, None]
    ]
    assert np.allclose(substitute.score_gradient(point, label)[0], numeric, rtol=0.05, atol=0.02)


def test_a_convolution_learns_digits_and_refuses_rows() -> None:
    train, held = datasets.digits()
    info = OracleInfo(
        name="digits", kind="plaintext", input_shape=(1, 8, 8), classes=10, low=0.0, high=1.0,
        answers=frozenset({LABELS}),
    )  # fmt: skip
    model = train_substitute(
        SmallConvolution(channels=(8, 8), hidden=32),
        info,
        train.inputs().astype(np.float64),
        one_hot(train.labels, 10),
        _training(4),
        np.random.default_rng(0),
    )
    right = model.scores(held.inputs().astype(np.float64)).argmax(axis=1) == held.labels
    assert right.mean() > 0.75
    with pytest.raises(DataSplitError, match="images"):
        SmallConvolution()(_oracle().info)


def test_training_refuses_nothing_and_nonsense() -> None:
    info = _oracle().info
    with pytest.raises(DataSplitError):
        train_substitute(
            Perceptron(), info, np.zeros((0, 2)), np.zeros((0, 3)), _training(1),
            np.random.default_rng(0),
        )  # fmt: skip
    with pytest.raises(DataSplitError):
        SubstituteTraining(epochs=0)


def _training(epochs: int) -> SubstituteTraining:
    return SubstituteTraining(epochs=epochs, batch=32, learning_rate=5e-3)


def _substitute() -> Substitute:
    data = _data()
    targets = one_hot(_nearest(data.pool).argmax(axis=1).astype(np.int64), 3)
    return train_substitute(
        Perceptron(hidden=(32,)),
        data.reference.info,
        data.pool,
        targets,
        _training(30),
        np.random.default_rng(1),
    )
