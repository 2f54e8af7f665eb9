"""Loads the stored weights of a model, or trains the model again.

torch is imported by the functions that need it, so that names and cards cost nothing.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from he_infer.datasets import Dataset
from he_infer.errors import DataError
from he_infer.progress import Progress
from he_infer.zoo.recipes import recipe

if TYPE_CHECKING:
    from torch import nn

    from he_infer.zoo.training import TrainingResult


def load(name: str) -> nn.Module:
    """The trained network, float32, in evaluation mode; (B, *input_shape) in [0, 1] → (B, 10).

    Raises TrainingError for an unknown name, DataError if the package lacks its weights.
    """
    import safetensors.torch

    from he_infer.zoo.architectures import build, quadratic

    model = build(recipe(name).name, quadratic)
    path = resources.files("he_infer.zoo").joinpath("weights", f"{name}.safetensors")
    if not path.is_file():
        raise DataError(f"the package holds no weights for {name!r}: train it with zoo.train")
    model.load_state_dict(safetensors.torch.load(path.read_bytes()))
    return model.eval()


def train(
    name: str, *, seed: int, data: Dataset, progress: Progress | None = None
) -> TrainingResult:
    """Run the recipe again on ``data``, its training set; minutes on one core.

    Raises TrainingError if the recipe is unknown or diverges, DataError if the data do not fit.
    """
    from he_infer.zoo import training
    from he_infer.zoo.architectures import quadratic

    return training.run(recipe(name), seed=seed, data=data, activation=quadratic, progress=progress)


def train_relu_twin(
    name: str, *, seed: int, data: Dataset, progress: Progress | None = None
) -> TrainingResult:
    """The same architecture, recipe, seed and batches with ReLU: the plain twin to compare with.

    Raises what :func:`train` raises.
    """
    from he_infer.zoo import training
    from he_infer.zoo.architectures import relu

    return training.run(recipe(name), seed=seed, data=data, activation=relu, progress=progress)
