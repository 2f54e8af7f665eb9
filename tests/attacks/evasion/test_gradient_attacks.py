"""FGSM, PGD and APGD: closed forms of linear models, and the order among attacks."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from attacks.core.records import Records
from attacks.core.result import AttackResult
from attacks.errors import AbilityError, DataSplitError, TooFewRecordsError
from attacks.evasion.gradient import fgsm, pgd
from attacks.evasion.gradient.apgd import APGD
from attacks.evasion.gradient.fgsm import FGSM
from attacks.evasion.gradient.pgd import PGD
from attacks.evasion.norms import L2, Ball, Linf, Norm
from attacks.evasion.setting import EvasionData
from tests.attacks.evasion.flat_models import (
    Scaled,
    digits,
    digits_oracle,
    linear,
    oracle_of,
)

ATTACKS = [FGSM(), PGD(steps=25), APGD(steps=20), APGD.of_ratios(steps=20)]
NAMES = ["fgsm", "pgd", "apgd-ce", "apgd-dlr"]


def _run(attack: Any, data: EvasionData, seed: int = 0) -> AttackResult:
    result: AttackResult = attack.run(digits_oracle(), data, np.random.default_rng(seed))
    return result


@pytest.mark.parametrize("norm", [Linf(), L2()], ids=["Linf", "L2"])
@pytest.mark.parametrize("attack", ATTACKS[:3], ids=NAMES[:3])
def test_a_linear_model_falls_exactly_where_its_margin_is_smaller_than_epsilon(
    attack: Any, norm: Norm
) -> None:
    """Of two classes with logits ±w·x the margin is w·x, and epsilon takes |w|·epsilon of it."""
    weights = np.array([0.5, -1.0, 0.25])
    model = linear([(-weights).tolist(), weights.tolist()], [0.0, 0.0])
    inputs = np.random.default_rng(0).uniform(0.4, 0.6, (200, 3))
    margins = inputs @ weights
    labels = (margins > 0).astype(np.int64)
    dual = np.abs(weights).sum() if norm.name == "Linf" else np.linalg.norm(weights)
    epsilon = 0.05  # nothing reaches 0 or 1
    data = EvasionData(
        records=Records(inputs=inputs, labels=labels),
        low=0.0,
        high=1.0,
        epsilon=epsilon,
        norm=norm,
        model=model,
    )
    result = attack.run(oracle_of(model, (3,)), data, np.random.default_rng(1))
    # PGD's steps need not end exactly on the sphere.
    clear = np.abs(np.abs(margins) - dual * epsilon) > 1e-3
    expected = np.abs(margins) < dual * epsilon
    assert np.array_equal(result.artifact.fooled[clear], expected[clear])
    assert 0.1 < expected.mean() < 0.9
    assert result.artifact.sizes.max() <= epsilon * (1 + 1e-9)


@pytest.mark.parametrize("attack", ATTACKS, ids=NAMES)
def test_moved_records_stay_in_the_ball_and_in_the_interval(attack: Any) -> None:
    data = digits(epsilon=0.2)
    moved = _run(attack, data).artifact.moved
    assert np.abs(moved - data.records.inputs).max() <= 0.2 * (1 + 1e-9)
    assert moved.min() >= 0 and moved.max() <= 1


def test_iterating_beats_one_step_and_choosing_steps_beats_fixed_ones() -> None:
    data = digits(200)
    one, fixed, chosen = (
        _run(attack, data).figure for attack in (FGSM(), PGD(steps=20), APGD(steps=40))
    )
    assert one.high < fixed.value <= chosen.high
    assert chosen.value > 0.7


def test_more_steps_are_never_weaker_on_any_record() -> None:
    data = digits(200, epsilon=0.08)
    fooled = [_run(PGD(steps=steps), data).artifact.fooled for steps in (2, 5, 20)]
    assert not (fooled[0] & ~fooled[1]).any() and not (fooled[1] & ~fooled[2]).any()


@pytest.mark.parametrize("attack", ATTACKS[1:], ids=NAMES[1:])
def test_the_whole_interval_fools_every_record(attack: Any) -> None:
    result = _run(attack, digits(epsilon=1.0))
    assert result.figure.value == 1.0
    assert result.metrics["robust_accuracy"].value == 0.0


def test_a_ratio_of_logits_finds_what_saturated_cross_entropy_hides() -> None:
    data = digits(100)
    masked = Scaled(data.model, 1e6)  # type: ignore[arg-type]
    hidden = dataclasses.replace(data, model=masked)
    entropy, ratio = _run(APGD(steps=30), hidden), _run(APGD.of_ratios(steps=30), hidden)
    assert entropy.figure.high < ratio.figure.low
    assert ratio.figure.value == _run(APGD.of_ratios(steps=30), data).figure.value


def test_wanted_classes_are_reached_and_are_harder_than_any() -> None:
    data = digits(60, epsilon=0.12)
    wanted = (data.records.labels + 1) % 10
    aimed = dataclasses.replace(data, wanted=wanted)
    for attack in (PGD(steps=30), APGD.of_ratios(steps=30)):
        result = _run(attack, aimed)
        reached = digits_oracle().query(result.artifact.moved).labels == wanted
        assert np.array_equal(reached & result.artifact.right, result.artifact.fooled)
        assert 0.2 < result.figure.value < _run(attack, data).figure.value


def test_restarts_keep_the_worst_case() -> None:
    data = digits(200, epsilon=0.07)
    once, thrice = (_run(PGD(steps=3, restarts=n), data).artifact for n in (1, 3))
    assert not (once.fooled & ~thrice.fooled).any()
    assert thrice.fooled.sum() > once.fooled.sum()


def test_every_record_is_asked_three_times_and_only_right_ones_are_moved() -> None:
    data = digits(359)
    oracle = digits_oracle()
    result = PGD(steps=20).run(oracle, data, np.random.default_rng(0))
    right = result.artifact.right
    assert 0 < (~right).sum() < 10
    assert oracle.ledger.spent.records == 359 + 2 * right.sum()
    assert result.spent.records == 359 + right.sum()  # the baseline is not the adversary's
    assert np.array_equal(result.artifact.moved[~right], data.records.inputs[~right])
    assert result.figure.count == right.sum()
    assert result.threat_model == "holder of the weights"
    assert result.baseline["success"].high < result.figure.low


def test_training_steps_keep_the_type_and_touch_no_weight() -> None:
    data = digits(20)
    model = data.require_model().float()
    inputs, labels = data.inputs().float(), data.goal().labels
    moved = pgd.perturb(
        model, inputs, labels, epsilon=0.1, norm=Linf(), steps=3, step=0.05, low=0.0, high=1.0,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert moved.dtype == torch.float32 and not moved.requires_grad
    assert all(weight.grad is None for weight in model.parameters())
    ball = Ball(norm=Linf(), epsilon=0.1, low=0.0, high=1.0)
    once = fgsm.step(model, inputs, data.goal(), ball)
    inside = (once > 0) & (once < 1)
    assert torch.allclose((once - inputs).abs()[inside & (once != inputs)], torch.tensor(0.1))


@pytest.mark.parametrize("epsilon", [0.0, -0.1, 1.5, float("nan"), float("inf")])
def test_an_epsilon_outside_the_interval_is_refused(epsilon: float) -> None:
    with pytest.raises(DataSplitError, match="epsilon lies above 0 and up to 1"):
        digits(epsilon=epsilon)


def test_a_wanted_class_that_is_the_true_one_is_refused() -> None:
    data = digits(5)
    with pytest.raises(DataSplitError, match="1 records are wanted to be taken for what they are"):
        wanted = (data.records.labels + 1) % 10
        wanted[3] = data.records.labels[3]
        dataclasses.replace(data, wanted=wanted)


def test_what_cannot_work_is_refused_before_anything_is_asked() -> None:
    data = digits(5)
    oracle = digits_oracle()
    with pytest.raises(AbilityError, match="weights are not at hand"):
        PGD().run(oracle, dataclasses.replace(data, model=None), np.random.default_rng(0))
    records = Records(inputs=np.full((2, 3), 0.5), labels=np.zeros(2, dtype=np.int64))
    other = EvasionData(
        records=records, low=0.0, high=1.0, epsilon=0.1, model=linear([[1.0] * 3] * 2, [0.0] * 2)
    )
    with pytest.raises(DataSplitError, match="takes records"):
        PGD().run(oracle, other, np.random.default_rng(0))
    assert oracle.ledger.spent.records == 0
    with pytest.raises(AbilityError, match="3 classes or more"):
        APGD.of_ratios().run(
            oracle_of(linear([[0.0] * 3, [-1.0] * 3], [1.0, 0.0]), (3,)),
            dataclasses.replace(other, model=linear([[0.0] * 3, [-1.0] * 3], [1.0, 0.0])),
            np.random.default_rng(0),
        )


def test_records_that_are_all_wrong_cannot_be_moved_to_be_wrong() -> None:
    data = digits(5)
    wrong = Records(inputs=data.records.inputs, labels=(data.records.labels + 1) % 10)
    with pytest.raises(TooFewRecordsError, match="none of 5 records"):
        _run(PGD(), dataclasses.replace(data, records=wrong))


def test_another_norm_takes_the_ball_of_equal_volume() -> None:
    result = _run(PGD(steps=5, norm=L2()), digits(20))
    radius = L2().equivalent(0.1, 64)
    assert result.artifact.sizes.max() == pytest.approx(radius, rel=1e-3)
    with pytest.raises(DataSplitError, match="state it there"):
        digits(20, norm=L2()).within(Linf())
