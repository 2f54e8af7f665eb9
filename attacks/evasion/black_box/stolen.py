"""Stolen models as networks with gradients, so that every attack on weights works on them."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.errors import AbilityError
from attacks.evasion.gradient.gradients import in_hand
from attacks.extraction.exact.quadratic_forms import QuadraticForms
from attacks.extraction.exact.weights import HiddenLayer
from attacks.extraction.learners import PerceptronModel
from attacks.extraction.setting import StolenModel
from attacks.extraction.substitute import Substitute


def as_network(stolen: StolenModel) -> nn.Module:
    """The same scores (B, classes) as a module in float64.

    Raises AbilityError for a model that has no gradient here, such as a tree.
    """
    if isinstance(stolen, Substitute):
        return in_hand(stolen.module)
    if isinstance(stolen, HiddenLayer):
        return _Squares(stolen)
    if isinstance(stolen, QuadraticForms):
        return _Forms(stolen)
    if isinstance(stolen, PerceptronModel):
        return _Layers(stolen)
    raise AbilityError(
        f"a stolen {type(stolen).__name__} has no gradient here: steal a substitute, a layer of "
        "squares, quadratic forms or a perceptron"
    )


class _Squares(nn.Module):
    """Scores outputs · (Wx + b)² + remainder · x + constants."""

    def __init__(self, layer: HiddenLayer) -> None:
        super().__init__()
        self._weights, self._biases = _tensor(layer.weights), _tensor(layer.biases)
        self._outputs, self._remainder = _tensor(layer.outputs), _tensor(layer.remainder)
        self._constants = _tensor(layer.constants)

    def forward(self, inputs: Tensor) -> Tensor:
        flat = inputs.flatten(1)
        hidden = (flat @ self._weights.T + self._biases) ** 2
        return hidden @ self._outputs.T + flat @ self._remainder.T + self._constants


class _Forms(nn.Module):
    """Scores zᵀAₖz + lₖ·z + cₖ of centred inputs."""

    def __init__(self, forms: QuadraticForms) -> None:
        super().__init__()
        self._forms, self._linear = _tensor(forms.forms), _tensor(forms.linear)
        self._constants = _tensor(forms.constants)
        self._center = float(forms.centering.center)
        self._half_width = float(forms.centering.half_width)

    def forward(self, inputs: Tensor) -> Tensor:
        z = (inputs.flatten(1) - self._center) / self._half_width
        quadratic = torch.einsum("bi,kij,bj->bk", z, self._forms, z)
        return quadratic + z @ self._linear.T + self._constants


class _Layers(nn.Module):
    """A perceptron as the learners fit it; one output z stands for the logits (0, z)."""

    def __init__(self, model: PerceptronModel) -> None:
        super().__init__()
        self._weights = [_tensor(each) for each in model.weights]
        self._biases = [_tensor(each) for each in model.biases]
        self._activation = model.activation

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs.flatten(1)
        last = len(self._weights) - 1
        for at, (weight, bias) in enumerate(zip(self._weights, self._biases, strict=True)):
            hidden = hidden @ weight + bias
            if at < last:
                hidden = self._activation(hidden)
        return hidden


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array.astype("float64"))
