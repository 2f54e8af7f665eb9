"""Twins: trained on the same members, close in accuracy, and fit to compile."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn

from attacks.core.records import Records
from attacks.errors import AuditError, ShadowError
from attacks.oracles.recipes import (
    CRYPTODL,
    MAX_SHIFT,
    MIN_LEADING,
    STANDARD,
    mlp,
    replace_activations,
    standard_recipe,
)
from attacks.training.recipe import TrainedTwins, TwinRecipe, train_twins
from attacks.training.stack import Stack, TrainingConfig, initialised, membership_masks
from he_infer import datasets
from he_infer.activations.layer import PolynomialActivation

MODELS = 4
DEEP = TwinRecipe(
    name="deep",
    architecture=lambda: nn.Sequential(
        nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 10)
    ),
    relu=TrainingConfig(epochs=30, batch=50, rate=0.01),
    polynomial=TrainingConfig(epochs=15, batch=50, rate=0.002, distillation=0.5),
    replacement=CRYPTODL,
)


@pytest.fixture(scope="module")
def pool() -> Records:
    train, _ = datasets.digits()
    return Records(inputs=train.flat_inputs()[:1000].astype(np.float64), labels=train.labels[:1000])


@pytest.fixture(scope="module")
def masks(pool: Records) -> np.ndarray:
    return membership_masks(MODELS, len(pool), np.random.default_rng(0))


@pytest.fixture(scope="module", params=["one layer", "two layers without normalisation"])
def twins(request: pytest.FixtureRequest, pool: Records, masks: np.ndarray) -> TrainedTwins:
    recipe = standard_recipe("digits") if request.param == "one layer" else DEEP
    return train_twins(recipe, pool, masks, seeds=range(MODELS))


def accuracy(stack: Stack) -> float:
    _, test = datasets.digits()
    answers = stack.logits(test.flat_inputs().astype(np.float64)).argmax(axis=2)
    return float((answers == test.labels).mean())


def test_the_twin_keeps_the_accuracy(twins: TrainedTwins) -> None:
    # 4 models on 359 records: the standard error of each is about 0.6 %.
    assert accuracy(twins.relu) > 0.92
    assert accuracy(twins.polynomial) > accuracy(twins.relu) - 0.03


def test_both_know_their_members_better_than_the_rest(
    twins: TrainedTwins, pool: Records, masks: np.ndarray
) -> None:
    for stack in (twins.relu, twins.polynomial):
        right = stack.logits(pool.inputs).argmax(axis=2) == pool.labels
        # 2,000 each: without memorising, the difference has a standard error of 0.7 %.
        assert right[masks].mean() - right[~masks].mean() > 0.02


def test_polynomials_stay_sane_on_any_image(twins: TrainedTwins, pool: Records) -> None:
    noise = np.random.default_rng(3).uniform(size=(1000, 64))
    known = np.abs(twins.polynomial.logits(pool.inputs)).max()
    assert np.abs(twins.polynomial.logits(noise)).max() < 5 * known


def test_quadratics_stay_curved(twins: TrainedTwins) -> None:
    for index in range(MODELS):
        for layer in twins.polynomial.module(index).modules():
            if isinstance(layer, PolynomialActivation):
                assert layer.degree == 2
                b, a = layer.coefficients.detach()[:, 1:].T
                assert (b / (2 * a)).abs().max() <= MAX_SHIFT


def test_the_floor_moves_only_what_is_too_flat() -> None:
    model = nn.Sequential(PolynomialActivation.quadratic(4, a=0.5, b=0.5))
    after_step = CRYPTODL.bounds(Stack.of([model, model]))
    values = torch.tensor([[0.0, 0.5, 0.3], [0.0, 0.5, 1e-6], [0.0, 3.2, -0.1], [0.0, 40.0, 0.1]])
    parameters = {"0.coefficients": torch.stack([values, values])}
    after_step(parameters)
    floor = MIN_LEADING * 0.5
    expected = torch.tensor([0.3, floor, -3.2 / (2 * MAX_SHIFT), 0.5])
    torch.testing.assert_close(parameters["0.coefficients"][0, :, 2], expected)
    torch.testing.assert_close(parameters["0.coefficients"][1, :, 2], expected)
    assert torch.equal(parameters["0.coefficients"][0, :, :2], values[:, :2])


def test_replacement_follows_relu_on_what_the_members_span(pool: Records) -> None:
    (model,) = initialised(functools.partial(mlp, 64, 8, 10), [0])
    replaced = replace_activations(model, pool.inputs.astype(np.float32))
    layer = next(x for x in replaced.modules() if isinstance(x, PolynomialActivation))
    center, radius = float(layer.center[0]), float(layer.radius[0])
    x = torch.linspace(center - radius, center + radius, 2001)[:, None].repeat(1, 8)
    with torch.no_grad():
        error = layer(x)[:, 0] - torch.relu(x[:, 0])
    # Orthogonal to 1, u, u²: what least squares means.
    u = (x[:, 0] - center) / radius
    for power in range(3):
        assert abs(float((error * u**power).mean())) < 1e-3 * radius


def test_a_network_without_activations_cannot_be_replaced() -> None:
    with pytest.raises(AuditError, match="cannot be replaced"):
        replace_activations(nn.Linear(4, 2), np.zeros((3, 4), dtype=np.float32))


def test_models_that_do_not_learn_are_named_by_their_number(pool: Records) -> None:
    masks = membership_masks(2, len(pool), np.random.default_rng(0))
    idle = TwinRecipe(
        name="idle",
        architecture=functools.partial(mlp, 64, 4, 10),
        relu=TrainingConfig(epochs=1, batch=500, rate=1e-12),
        polynomial=DEEP.polynomial,
        replacement=CRYPTODL,
    )
    # What random weights get right by luck decides which of the two is named first.
    with pytest.raises(ShadowError, match=r"models \[4, 5\]"):
        train_twins(
            idle, Records(inputs=0 * pool.inputs, labels=pool.labels), masks, seeds=[0, 1], first=4
        )


@pytest.mark.parametrize("data", STANDARD)
def test_standard_recipes_take_their_data(data: str) -> None:
    (model,) = initialised(standard_recipe(data).architecture, [0])
    shape = (1, 8, 8) if data == "digits" else (1, 28, 28)
    assert model.eval()(torch.zeros(2, *shape)).shape == (2, 10)


def test_other_data_has_no_standard_recipe() -> None:
    with pytest.raises(AuditError, match="no standard recipe for 'cifar'"):
        standard_recipe("cifar")
