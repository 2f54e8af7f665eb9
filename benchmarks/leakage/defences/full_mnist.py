"""Rows on adversarial training for MNIST at L∞ 0.3, the setting that is published."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from torch import nn

from attacks.core.records import Records
from attacks.defences.adversarial_training import ProjectedGradient
from attacks.oracles.recipes import CRYPTODL
from attacks.training.perturbed import PerturbedTraining
from attacks.training.recipe import TwinRecipe
from attacks.training.stack import TrainingConfig, initialised
from benchmarks.leakage.defences.robustness import accuracy, starts
from benchmarks.leakage.setting import flat, in_the_clear
from benchmarks.rows import Row
from he_infer import datasets
from he_infer.errors import DataError

EPSILON: Final = 0.3
MEMBERS: Final = 30_000
TEST: Final = 1000
PUBLISHED: Final = 0.89
# Epsilon, epochs, steps, and a step as a share of epsilon.
SCHEDULE: Final = ((0.1, 1, 2, 0.75), (0.2, 1, 3, 0.5), (EPSILON, 8, 5, 0.3))
_SOURCE: Final = "Madry et al. 2018, 89 to 93 % for their convolution"


def small_convolution() -> nn.Module:
    """Two convolutions of stride two and two linear layers, as Wong, Rice and Kolter 2020 take."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1568, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def rows() -> Iterator[Row]:
    """A small convolution and its polynomial twin, on part of the records; some minutes.

    Without the full data set they hold no figure, and say so.
    """
    names = [f"MNIST {what}: robust accuracy at Linf 0.3" for what in ("convolution", "its twin")]
    try:
        train, test = datasets.mnist()
    except DataError as error:
        for name in names:
            yield Row(name, _SOURCE, reference=PUBLISHED, reason=str(error))
        return
    held_out = _images(test, TEST)
    for name, network in zip(names, _robust(_images(train, MEMBERS)), strict=True):
        oracle = in_the_clear(network, name, (1, 28, 28))
        robust = accuracy(oracle, starts(network, held_out, EPSILON), held_out.labels)
        clean = accuracy(oracle, [held_out.inputs], held_out.labels)
        yield Row(
            name,
            _SOURCE,
            reference=PUBLISHED,
            ours=robust,
            # With a tenth of the training, reaching the figure is news and missing it is not.
            holds=True if robust.high >= PUBLISHED else None,
            reason=f"clean accuracy {clean}; {MEMBERS} of 60,000 records for "
            f"{sum(epochs for _, epochs, _, _ in SCHEDULE)} epochs of {SCHEDULE[-1][2]} steps, "
            "where the paper takes all of them, some 80 epochs of 40 steps, and a network of "
            "20 times the weights: the figure is not expected to be reached",
        )


def _robust(members: Records) -> tuple[nn.Module, nn.Module]:
    """The ReLU network and its twin."""
    recipe = TwinRecipe(
        name="mnist convolution",
        architecture=small_convolution,
        relu=TrainingConfig(epochs=1, batch=100, rate=0.002),
        polynomial=TrainingConfig(epochs=4, batch=100, rate=0.001, distillation=0.5),
        replacement=CRYPTODL,
    )
    (relu,) = initialised(small_convolution, [0])
    for stage, (epsilon, epochs, steps, share) in enumerate(SCHEDULE):
        # Started at 0.3, the network answers one class and stays there.
        training = PerturbedTraining(
            perturbation=ProjectedGradient(epsilon=epsilon, steps=steps, step_share=share)
        )
        longer = replace(recipe, relu=replace(recipe.relu, epochs=epochs))
        relu = training.original(longer, relu, members, seed=stage)
    return relu, training.twin(recipe, relu, members, seed=0)


def _images(data: datasets.Dataset, count: int) -> Records:
    records = flat(data, count)
    return Records(inputs=records.inputs.reshape(-1, 1, 28, 28), labels=records.labels)
