"""Stacked training equals one-by-one training, and never hands out an untrained model."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn

from attacks.core.records import Records
from attacks.errors import DataSplitError, ShadowError
from attacks.oracles.recipes import mlp
from attacks.training.loop import train_loop
from attacks.training.stack import (
    Stack,
    TrainingConfig,
    initialised,
    membership_masks,
    train_stack,
)
from he_infer import datasets

CONFIG = TrainingConfig(epochs=3, batch=40, rate=0.01, weight_decay=1e-3)
ARCHITECTURE = functools.partial(mlp, 64, 16, 10)


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        # A bias before batch norm has no gradient but rounding, which Adam blows up to full steps.
        nn.Conv2d(1, 3, 3, stride=2, bias=False),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(27, 10),
    )


@pytest.fixture(scope="module")
def pool() -> Records:
    train, _ = datasets.digits()
    return Records(inputs=train.flat_inputs()[:400].astype(np.float64), labels=train.labels[:400])


@pytest.mark.parametrize("architecture", [ARCHITECTURE, convolutional])
def test_a_stack_learns_what_a_loop_learns(pool: Records, architecture: object) -> None:
    assert callable(architecture)
    masks = membership_masks(4, len(pool), np.random.default_rng(1))
    seeds = [3, 1, 4, 1]
    models = initialised(architecture, seeds)
    together = train_stack(models, pool, masks, CONFIG, seeds=seeds)
    alone = train_loop(models, pool, masks, CONFIG, seeds=seeds)
    # float32, 15 steps: orders of summation differ in the last digits only.
    for name, value in together.parameters.items():
        torch.testing.assert_close(value, alone.parameters[name], rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        together.logits(pool.inputs), alone.logits(pool.inputs), rtol=0, atol=1e-4
    )


def test_distillation_is_the_same_in_both(pool: Records) -> None:
    masks = membership_masks(2, len(pool), np.random.default_rng(1))
    config = TrainingConfig(epochs=2, batch=40, rate=0.01, distillation=0.7)
    models = initialised(ARCHITECTURE, [0, 1])
    targets = np.random.default_rng(2).normal(size=(2, len(pool), 10))
    targets[..., 0] += 3 * (pool.labels == 0)
    arguments = {"seeds": [0, 1], "targets": targets}
    together = train_stack(models, pool, masks, config, **arguments)  # type: ignore[arg-type]
    alone = train_loop(models, pool, masks, config, **arguments)  # type: ignore[arg-type]
    np.testing.assert_allclose(
        together.logits(pool.inputs), alone.logits(pool.inputs), rtol=0, atol=1e-4
    )


def test_running_statistics_are_each_models_own(pool: Records) -> None:
    masks = membership_masks(2, len(pool), np.random.default_rng(1))
    stack = train_stack(initialised(ARCHITECTURE, [0, 0]), pool, masks, CONFIG, seeds=[0, 0])
    means = stack.buffers["2.running_mean"]
    assert not torch.allclose(means[0], means[1])
    assert stack.buffers["2.num_batches_tracked"].tolist() == [15, 15]


def test_a_module_of_the_stack_answers_as_the_stack_does(pool: Records) -> None:
    masks = membership_masks(2, len(pool), np.random.default_rng(1))
    stack = train_stack(initialised(ARCHITECTURE, [0, 1]), pool, masks, CONFIG, seeds=[0, 1])
    with torch.inference_mode():
        one = stack.module(1).double()(torch.as_tensor(pool.inputs)).numpy()
    np.testing.assert_allclose(stack.logits(pool.inputs)[1], one, atol=1e-12)


def test_the_given_models_stay_untrained(pool: Records) -> None:
    masks = membership_masks(2, len(pool), np.random.default_rng(1))
    models = initialised(ARCHITECTURE, [0, 1])
    before = models[0][1].weight.detach().clone()  # type: ignore[index]
    train_stack(models, pool, masks, CONFIG, seeds=[0, 1])
    assert torch.equal(before, models[0][1].weight)  # type: ignore[index]


def test_diverged_models_are_named(pool: Records) -> None:
    masks = membership_masks(2, len(pool), np.random.default_rng(1))
    models = initialised(ARCHITECTURE, [0, 1])
    with torch.no_grad():
        models[1][1].weight.fill_(torch.nan)  # type: ignore[index]
    with pytest.raises(ShadowError, match=r"models \[1\] diverged"):
        train_stack(models, pool, masks, CONFIG, seeds=[0, 1])
    with pytest.raises(ShadowError, match=r"models \[9\] diverged"):
        train_stack(models, pool, masks, CONFIG, seeds=[0, 1], first=8)


def test_dropout_draws_noise_of_its_own_for_each_model(pool: Records) -> None:
    architecture = functools.partial(
        nn.Sequential, nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10)
    )
    row = membership_masks(2, len(pool), np.random.default_rng(1))[:1]
    masks = np.concatenate([row, row])
    first, second = initialised(architecture, [0, 0])
    seeds = [0, 0]  # the same network, members and batches: only dropout differs
    stack = train_stack([first, second], pool, masks, CONFIG, seeds=seeds)
    again = train_stack([first, second], pool, masks, CONFIG, seeds=seeds)
    logits = stack.logits(pool.inputs)
    assert abs(logits[0] - logits[1]).max() > 0.01
    np.testing.assert_array_equal(logits, again.logits(pool.inputs))


def test_training_leaves_torchs_random_stream_alone(pool: Records) -> None:
    masks = membership_masks(2, len(pool), np.random.default_rng(1))
    before = torch.random.get_rng_state()
    train_stack(initialised(ARCHITECTURE, [0, 1]), pool, masks, CONFIG, seeds=[0, 1])
    assert torch.equal(before, torch.random.get_rng_state())


def test_untrained_models_are_named(pool: Records) -> None:
    masks = membership_masks(2, len(pool), np.random.default_rng(1))
    idle = TrainingConfig(epochs=1, batch=200, rate=1e-12)
    rarest = int(np.bincount(pool.labels).argmin())
    models = initialised(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), [0, 1])
    with torch.no_grad():
        for model in models:
            model[1].weight.zero_()  # type: ignore[index]
            model[1].bias[rarest] = 10.0  # type: ignore[index]
    with pytest.raises(ShadowError, match=r"models \[0, 1\] are no better than chance"):
        train_stack(models, pool, masks, idle, seeds=[0, 1])


def test_every_record_is_in_half_of_the_models() -> None:
    masks = membership_masks(6, 20, np.random.default_rng(0))
    assert (masks.sum(axis=0) == 3).all() and (masks.sum(axis=1) == 10).all()


@pytest.mark.parametrize(("models", "records"), [(3, 20), (0, 20), (4, 21)])
def test_odd_numbers_have_no_balanced_memberships(models: int, records: int) -> None:
    with pytest.raises(DataSplitError, match="both must be even"):
        membership_masks(models, records, np.random.default_rng(0))


def test_models_with_unequal_memberships_are_refused(pool: Records) -> None:
    masks = membership_masks(2, len(pool), np.random.default_rng(1))
    masks[0, np.flatnonzero(masks[0])[0]] = False
    with pytest.raises(DataSplitError, match="equally many members"):
        train_stack(initialised(ARCHITECTURE, [0, 1]), pool, masks, CONFIG, seeds=[0, 1])


def test_different_architectures_do_not_stack() -> None:
    with pytest.raises(ShadowError, match="one architecture"):
        Stack.of([mlp(4, 3, 2), mlp(4, 5, 2)])
