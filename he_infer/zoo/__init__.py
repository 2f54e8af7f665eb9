"""Trained models with polynomial activations, the recipes behind them, and their cards.

    model = zoo.load("mnist-lola")          # weights as trained, evaluation mode
    card = zoo.card("mnist-lola")           # data, recipe, seed, accuracy with its interval
    result = zoo.train("mnist-lola", seed=card.seed, data=zoo.training_set("mnist-lola"))

torch is imported by the functions that need it, not by this module.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from he_infer import datasets
from he_infer.errors import DataError
from he_infer.progress import Progress
from he_infer.zoo.cards import Card, read_card
from he_infer.zoo.recipes import NAMES, Augmentation, Recipe, recipe

if TYPE_CHECKING:
    from torch import nn

    from he_infer.zoo.training import TrainingResult

__all__ = [
    "NAMES",
    "Augmentation",
    "Card",
    "Recipe",
    "card",
    "inputs",
    "load",
    "recipe",
    "sample",
    "test_set",
    "train",
    "train_relu_twin",
    "training_set",
]


def load(name: str) -> nn.Module:
    """The trained network, float32, in evaluation mode; (B, *input_shape) in [0, 1] → (B, 10).

    Raises TrainingError for an unknown name, DataError if the package lacks its weights.
    """
    import safetensors.torch

    from he_infer.zoo.architectures import ARCHITECTURES, quadratic

    architecture = ARCHITECTURES[recipe(name).name]
    path = resources.files("he_infer.zoo").joinpath("weights", f"{name}.safetensors")
    if not path.is_file():
        raise DataError(f"the package holds no weights for {name!r}: train it with zoo.train")
    model = architecture(quadratic)
    model.load_state_dict(safetensors.torch.load(path.read_bytes()))
    return model.eval()


def card(name: str) -> Card:
    """What was measured for ``name``; raises TrainingError for an unknown name."""
    return read_card(recipe(name).name)


def train(
    name: str, *, seed: int, data: datasets.Dataset, progress: Progress | None = None
) -> TrainingResult:
    """Run the recipe again on ``data``, its training set; minutes on one core.

    Raises TrainingError if the recipe is unknown or diverges, DataError if the data do not fit.
    """
    from he_infer.zoo import training
    from he_infer.zoo.architectures import quadratic

    return training.run(recipe(name), seed=seed, data=data, activation=quadratic, progress=progress)


def train_relu_twin(
    name: str, *, seed: int, data: datasets.Dataset, progress: Progress | None = None
) -> TrainingResult:
    """The same architecture, recipe, seed and batches with ReLU: the plain twin to compare with."""
    from he_infer.zoo import training
    from he_infer.zoo.architectures import relu

    return training.run(recipe(name), seed=seed, data=data, activation=relu, progress=progress)


def training_set(name: str, folder: Path | None = None) -> datasets.Dataset:
    """The data that ``name`` was trained on; ``folder`` as in :func:`he_infer.datasets.mnist`.

    Raises DataError if it is not at hand.
    """
    if recipe(name).data == "digits":
        return datasets.digits()[0]
    return datasets.mnist(folder)[0]


def test_set(name: str) -> datasets.Dataset:
    """The data that the card of ``name`` was measured on; always at hand."""
    if recipe(name).data == "digits":
        return datasets.digits()[1]
    return datasets.mnist_test()


def inputs(name: str, data: datasets.Dataset) -> NDArray[np.float32]:
    """The images of ``data`` as ``name`` takes them, (B, *input_shape) in [0, 1]."""
    return data.inputs().reshape(len(data), *recipe(name).input_shape)


def sample(name: str, n: int) -> NDArray[np.float32]:
    """The first ``n`` training inputs, (n, *input_shape), to calibrate ranges on.

    Embedded, so the same everywhere and never test data. Raises DataError beyond what the
    package holds (1,024 for MNIST, 1,438 for digits).
    """
    chosen = recipe(name)
    if chosen.data == "digits":
        train, _ = datasets.digits()
        images, white = train.images, train.max_value
    else:
        images, white = datasets.mnist_calibration(), 255
    if not 1 <= n <= len(images):
        raise DataError(
            f"{n} calibration inputs: the package holds {len(images)}, take more from "
            "zoo.training_set"
        )
    scaled = images[:n] / np.float32(white)
    return scaled.astype(np.float32).reshape(n, *chosen.input_shape)
