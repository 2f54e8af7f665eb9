"""Models whose adversarial examples are known in closed form, and the records to move."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from attacks.core.records import Records
from attacks.evasion.norms import Linf, Norm
from attacks.evasion.setting import EvasionData
from attacks.oracles.plaintext import TorchOracle
from he_infer import zoo


def linear(weights: list[list[float]], biases: list[float]) -> nn.Module:
    layer = nn.Linear(len(weights[0]), len(weights), dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights, dtype=torch.float64))
        layer.bias.copy_(torch.tensor(biases, dtype=torch.float64))
    return layer.eval()


class Scaled(nn.Module):
    """Logits times a factor: the labels stay, and a large one flattens the cross-entropy."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model = model
        self.factor = factor

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.factor * self.model(inputs)
        return outputs


class Quantised(nn.Module):
    """Rounds its inputs: nearly the same labels, and no gradient at all."""

    def __init__(self, model: nn.Module, steps: int) -> None:
        super().__init__()
        self.model = model
        self.steps = steps

    def forward(self, inputs: Tensor) -> Tensor:
        rounded = torch.round(inputs * self.steps) / self.steps
        outputs: Tensor = self.model(rounded.detach() + 0 * inputs)
        return outputs


def oracle_of(model: nn.Module, shape: tuple[int, ...]) -> TorchOracle:
    return TorchOracle(model, name="target", input_shape=shape, low=0.0, high=1.0)


def digits(count: int = 60, *, epsilon: float = 0.1, norm: Norm | None = None) -> EvasionData:
    """Test records of digits-mlp, which is the network at hand."""
    name = "digits-mlp"
    held = zoo.test_set(name)
    inputs = zoo.inputs(name, held).astype(np.float64)[:count]
    labels = held.labels[:count].astype(np.int64)
    return EvasionData(
        records=Records(inputs=inputs, labels=labels),
        low=0.0,
        high=1.0,
        epsilon=epsilon,
        norm=Linf() if norm is None else norm,
        model=zoo.load(name),
    )


def digits_oracle() -> TorchOracle:
    return oracle_of(zoo.load("digits-mlp"), (64,))
