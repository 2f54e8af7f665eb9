"""The networks that are measured, with the inputs and labels to measure them on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from he_infer import datasets, zoo
from he_infer.errors import InputError

MLP_NAME: Final = "mlp-784-128-10"
MLP_SEED: Final = 20240


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network in evaluation mode with its data.

    ``sample``: calibration inputs (S, *record). ``inputs``: test inputs (B, *record) float32.
    ``labels``: (B,), or None if the weights are random and a label would mean nothing.
    """

    name: str
    model: nn.Module
    sample: NDArray[np.float32]
    inputs: NDArray[np.float32]
    labels: NDArray[np.int64] | None

    def logits(self, records: NDArray[np.float32]) -> NDArray[np.float64]:
        """The plaintext twin's answer in float64: (B, *record) → (B, outputs)."""
        model = self.model.double()
        with torch.no_grad():
            return np.asarray(model(torch.from_numpy(records.astype(np.float64))).numpy())


class Square(nn.Module):
    """Elementwise square."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x


def random_mlp() -> nn.Sequential:
    """784-128-10 with a square between; *seeded random weights*: only its latency is of interest.

    Weights are normal with variance 1/inputs, so that values stay of order one.
    """
    generator = torch.Generator().manual_seed(MLP_SEED)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), Square(), nn.Linear(128, 10))
    with torch.no_grad():
        for layer in (model[1], model[3]):
            assert isinstance(layer, nn.Linear)
            layer.weight.normal_(0.0, layer.in_features**-0.5, generator=generator)
            layer.bias.normal_(0.0, 0.1, generator=generator)
    return model.eval()


def _zoo_case(name: str) -> Case:
    test = zoo.test_set(name)
    return Case(
        name=name,
        model=zoo.load(name),
        sample=zoo.sample(name, 1024),
        inputs=zoo.inputs(name, test),
        labels=test.labels,
    )


def _random_mlp_case() -> Case:
    sample = (datasets.mnist_calibration()[:, None] / 255).astype(np.float32)
    test = datasets.mnist_test()
    return Case(name=MLP_NAME, model=random_mlp(), sample=sample, inputs=test.inputs(), labels=None)


NAMES: Final = (*zoo.NAMES, MLP_NAME)


def load(name: str) -> Case:
    """Load a case by name; raises InputError for an unknown one."""
    if name not in NAMES:
        raise InputError(f"no case is called {name!r}: choose one of {', '.join(NAMES)}")
    return _random_mlp_case() if name == MLP_NAME else _zoo_case(name)
