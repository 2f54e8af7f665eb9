"""Substitute networks that an attacker trains on an oracle's answers, and what transfers from them.

The substitute is an ordinary small torch network in float32; nothing of the target is used but
its answers. ``fgsm`` crafts adversarial examples on it (Goodfellow et al. 2015), and
``transfer_rate`` says how many of them the target gets wrong (Papernot et al. 2017, section 3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.errors import DataSplitError
from attacks.metrics.intervals import Estimate, clopper_pearson
from attacks.oracle import Oracle, OracleInfo
from attacks.records import Records

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
    """A trained network in the attacker's hands: a stolen model with gradients."""

    module: nn.Module
    low: float
    high: float

    def scores(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """(B, *input_shape) → logits (B, classes)."""
        with torch.no_grad():
            parts = [
                self.module(_tensor(inputs[at : at + _FORWARD_RECORDS]))
                for at in range(0, len(inputs), _FORWARD_RECORDS)
            ]
        return torch.cat(parts).numpy().astype(np.float64)

    def loss_gradient(
        self, inputs: NDArray[np.float64], labels: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Of the cross-entropy, by the input: shaped as ``inputs``."""

        def loss(outputs: Tensor, first: int) -> Tensor:
            wanted = torch.from_numpy(labels[first : first + len(outputs)])
            return nn.functional.cross_entropy(outputs, wanted, reduction="sum")

        return self._gradient(inputs, loss)

    def score_gradient(
        self, inputs: NDArray[np.float64], labels: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Of the probability given to ``labels``: one row of the Jacobian, shaped as ``inputs``."""

        def chosen(outputs: Tensor, first: int) -> Tensor:
            wanted = torch.from_numpy(labels[first : first + len(outputs)])
            # The sign of the gradient of log p is that of p, without its underflow.
            logs = torch.log_softmax(outputs, dim=1)
            return logs.gather(1, wanted[:, None]).sum()

        return self._gradient(inputs, chosen)

    def _gradient(
        self, inputs: NDArray[np.float64], value: Callable[[Tensor, int], Tensor]
    ) -> NDArray[np.float64]:
        parts = []
        for at in range(0, len(inputs), _FORWARD_RECORDS):
            batch = _tensor(inputs[at : at + _FORWARD_RECORDS]).requires_grad_()
            (gradient,) = torch.autograd.grad(value(self.module(batch), at), batch)
            parts.append(gradient.numpy())
        return np.concatenate(parts).astype(np.float64)


def train_substitute(
    architecture: Architecture,
    info: OracleInfo,
    inputs: NDArray[np.float64],
    targets: NDArray[np.float64],
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


def one_hot(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """(B,) → (B, classes)."""
    return np.eye(classes)[labels]


def fgsm(substitute: Substitute, records: Records, epsilon: float) -> NDArray[np.float64]:
    """The records moved by ``epsilon`` along the sign of the loss gradient, within the interval.

    Goodfellow et al. 2015, section 4. ``epsilon`` in input units; (B, *input_shape).
    """
    if not epsilon > 0:
        raise DataSplitError(f"epsilon is positive, got {epsilon}")
    direction = np.sign(substitute.loss_gradient(records.inputs, records.labels))
    moved: NDArray[np.float64] = np.clip(
        records.inputs + epsilon * direction, substitute.low, substitute.high
    )
    return moved


def transfer_rate(
    substitute: Substitute, oracle: Oracle, records: Records, epsilon: float
) -> Estimate:
    """How many FGSM examples made on the substitute the oracle gets wrong, of all ``records``.

    Papernot et al. 2017's transferability: also those count that it got wrong before.
    """
    labels = oracle.query(fgsm(substitute, records, epsilon)).labels
    return clopper_pearson(int(np.count_nonzero(labels != records.labels)), len(records))


def _tensor(array: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
