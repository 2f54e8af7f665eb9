"""The data that the models of the zoo were trained, calibrated and measured on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from he_infer import datasets
from he_infer.errors import DataError
from he_infer.zoo.recipes import recipe


def training_set(name: str, folder: Path | None = None) -> datasets.Dataset:
    """The data that ``name`` was trained on; ``folder`` as in :func:`he_infer.datasets.mnist`.

    Raises DataError if it is not at hand.
    """
    return (datasets.digits() if _on_digits(name) else datasets.mnist(folder))[0]


def test_set(name: str) -> datasets.Dataset:
    """The data that the card of ``name`` was measured on; always at hand."""
    return datasets.digits()[1] if _on_digits(name) else datasets.mnist_test()


def inputs(name: str, data: datasets.Dataset) -> NDArray[np.float32]:
    """The images of ``data`` as ``name`` takes them, (B, *input_shape) in [0, 1]."""
    return data.inputs().reshape(len(data), *recipe(name).input_shape)


def sample(name: str, n: int) -> NDArray[np.float32]:
    """The first ``n`` training inputs, (n, *input_shape), to calibrate ranges on.

    They are embedded, so they are the same everywhere, and they are never test data.
    Raises DataError beyond what the package holds (1,024 for MNIST, 1,438 for digits).
    """
    images, white = datasets.mnist_calibration(), 255
    if _on_digits(name):
        digits, _ = datasets.digits()
        images, white = digits.images, digits.max_value
    if not 1 <= n <= len(images):
        raise DataError(
            f"{n} calibration inputs: the package holds {len(images)}, take more from "
            "zoo.training_set"
        )
    scaled = images[:n] / np.float32(white)
    return scaled.astype(np.float32).reshape(n, *recipe(name).input_shape)


def _on_digits(name: str) -> bool:
    return recipe(name).data == "digits"
