"""Substitute networks that an adversary trains on an oracle's answers.

The substitute is an ordinary small torch network in float32; nothing of the target is used but
its answers. What is crafted on it, and how much of that transfers, is in attacks/evasion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.core.arrays import Floats
from attacks.core.oracle import OracleInfo
from attacks.errors import DataSplitError

_FORWARD_RECORDS: Final = 2048
# Builds an untrained network for records of info.input_shape and info.classes scores.
Architecture = Callable[[OracleInfo], nn.Module]


@dataclass(frozen=True, slots=True, kw_only=True)
class Perceptron:
    """An architecture: dense layers of these widths with ReLU between them."""

    hidden: tuple[int, ...] = (64,)

    def __call__(self, info: OracleInfo) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        width = info.features
        for wider in self.hidden:
            layers += [nn.Linear(width, wider), nn.ReLU()]
            width = wider
        return nn.Sequential(*layers, nn.Linear(width, info.classes))


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallConvolution:
    """An architecture for images (C, H, W): two convolutions with pooling and a dense layer."""

    channels: tuple[int, int] = (16, 32)
    hidden: int = 128

    def __call__(self, info: OracleInfo) -> nn.Module:
        if len(info.input_shape) != 3:
            raise DataSplitError(
                f"a convolution takes images (C, H, W), {info.name} takes {info.input_shape}: "
                "use a perceptron"
            )
        colours, height, width = info.input_shape
        first, second = self.channels
        return nn.Sequential(
            nn.Conv2d(colours, first, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(second * (height // 4) * (width // 4), self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, info.classes),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SubstituteTraining:
    """Adam over ``epochs`` passes in batches of ``batch`` records at ``learning_rate``."""

    epochs: int = 30
    batch: int = 64
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or not self.learning_rate > 0:
            raise DataSplitError(
                f"training takes at least one epoch, one record per batch and a positive rate, "
                f"got {self.epochs}, {self.batch} and {self.learning_rate}"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Substitute:
    """A trained network in the adversary's hands: a stolen model with gradients."""

    module: nn.Module
    low: float
    high: float

    def scores(self, inputs: Floats) -> Floats:
        """(B, *input_shape) → logits (B, classes)."""
        with torch.no_grad():
            parts = [
                self.module(_tensor(inputs[at : at + _FORWARD_RECORDS]))
                for at in range(0, len(inputs), _FORWARD_RECORDS)
            ]
        return torch.cat(parts).numpy().astype(np.float64)

    def score_gradient(self, inputs: Floats, labels: NDArray[np.int64]) -> Floats:
        """Of the probability given to ``labels``: one row of the Jacobian, shaped as ``inputs``."""
        parts = []
        for at in range(0, len(inputs), _FORWARD_RECORDS):
            batch = _tensor(inputs[at : at + _FORWARD_RECORDS]).requires_grad_()
            wanted = torch.from_numpy(labels[at : at + len(batch)])
            # The sign of the gradient of log p is that of p, without its underflow.
            logs = torch.log_softmax(self.module(batch), dim=1)
            (gradient,) = torch.autograd.grad(logs.gather(1, wanted[:, None]).sum(), batch)
            parts.append(gradient.numpy())
        return np.concatenate(parts).astype(np.float64)


def train_substitute(
    architecture: Architecture,
    info: OracleInfo,
    inputs: Floats,
    targets: Floats,
    training: SubstituteTraining,
    rng: np.random.Generator,
) -> Substitute:
    """Train a fresh network on ``inputs`` (B, *input_shape), ``targets`` (B, classes).

    Targets are probabilities, one-hot for labels; the loss is cross-entropy. Deterministic given
    ``rng``; torch's global generator is left as it was.
    """
    if len(inputs) == 0 or len(inputs) != len(targets):
        raise DataSplitError(
            f"a substitute trains on records with one target each, got {len(inputs)} records and "
            f"{len(targets)} targets"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**62)))
        module = architecture(info)
    records, wanted = _tensor(inputs), _tensor(targets)
    optimiser = torch.optim.Adam(module.parameters(), lr=training.learning_rate)
    module.train()
    for _ in range(training.epochs):
        order = torch.from_numpy(rng.permutation(len(inputs)))
        for at in range(0, len(order), training.batch):
            batch = order[at : at + training.batch]
            loss = nn.functional.cross_entropy(module(records[batch]), wanted[batch])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    module.eval().requires_grad_(False)
    return Substitute(module=module, low=info.low, high=info.high)


def one_hot(labels: NDArray[np.int64], classes: int) -> Floats:
    """(B,) → (B, classes)."""
    return np.eye(classes)[labels]


def _tensor(array: Floats) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
