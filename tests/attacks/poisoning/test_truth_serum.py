"""Poison that tells members: what is added, and that leakage rises by more than the intervals."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from attacks.audit.bench.data import load_records
from attacks.core.records import Records
from attacks.errors import DataSplitError
from attacks.oracles.recipes import mlp
from attacks.poisoning.networks import NetworkLearner
from attacks.poisoning.truth_serum import AUC, TruthSerum
from attacks.training.stack import TrainingConfig


def learner(epochs: int = 20) -> NetworkLearner:
    return NetworkLearner(
        architecture=functools.partial(mlp, 64, 32, 10),
        config=TrainingConfig(epochs=epochs, batch=50, rate=0.01),
        description="digits mlp",
    )


def digits(count: int) -> Records:
    _, records = load_records("digits")
    return records.select(slice(0, count))


def test_poison_is_copies_with_one_wrong_label() -> None:
    targets = digits(30)
    poison = TruthSerum(copies=4).poison(targets, classes=10, rng=np.random.default_rng(0))
    assert len(poison) == 120
    assert (poison.inputs.reshape(30, 4, *targets.shape) == targets.inputs[:, None]).all()
    labels = poison.labels.reshape(30, 4)
    assert (labels == labels[:, :1]).all() and (labels[:, 0] != targets.labels).all()


def test_membership_leaks_more_with_poison() -> None:
    attack = TruthSerum(copies=2, targets=40, models=8)
    result = attack.run(learner(), digits(800), np.random.default_rng(1))
    assert result.metrics[f"{AUC}_rise"].low > 0
    assert result.metrics[f"{AUC}_rise"].value == pytest.approx(
        result.metrics[AUC].value - result.baseline[AUC].value
    )
    assert result.threat_model == "training-time adversary"
    assert len(result.artifact) == 8


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: TruthSerum(copies=0), "a copy"),
        (lambda: TruthSerum(models=7), "even number"),
        (
            lambda: TruthSerum(targets=50).run(learner(), digits(80), np.random.default_rng(0)),
            "50 targets in a pool of 80",
        ),
        (
            lambda: TruthSerum(targets=40, copies=8).run(
                learner(), digits(100), np.random.default_rng(0)
            ),
            "poison budget of 320 records",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(attempt: object, message: str) -> None:
    with pytest.raises(DataSplitError, match=message):
        attempt()  # type: ignore[operator]
