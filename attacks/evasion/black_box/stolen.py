"""Stolen models as networks with gradients, so that every attack on weights works on them."""

from __future__ import annotations

from collections.abc import Callable
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
        return _Network(_squares(stolen))
    if isinstance(stolen, QuadraticForms):
        return _Network(_forms(stolen))
    if isinstance(stolen, PerceptronModel):
        return _Network(stolen.outputs)
    raise AbilityError(
        f"a stolen {type(stolen).__name__} has no gradient here: steal a substitute, a layer of "
        "squares, quadratic forms or a perceptron"
    )


class _Network(nn.Module):
    """Scores (B, classes) that a function gives of flattened records (B, d)."""

    def __init__(self, scores: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._scores = scores

    def forward(self, inputs: Tensor) -> Tensor:
        return self._scores(inputs.flatten(1))


def _squares(layer: HiddenLayer) -> Callable[[Tensor], Tensor]:
    """outputs · (Wx + b)² + remainder · x + constants."""
    weights, biases = _tensor(layer.weights), _tensor(layer.biases)
    outputs, remainder = _tensor(layer.outputs), _tensor(layer.remainder)
    constants = _tensor(layer.constants)

    def scores(flat: Tensor) -> Tensor:
        return (flat @ weights.T + biases) ** 2 @ outputs.T + flat @ remainder.T + constants

    return scores


def _forms(model: QuadraticForms) -> Callable[[Tensor], Tensor]:
    """zᵀAₖz + lₖ·z + cₖ of centred inputs z."""
    forms, linear, constants = map(_tensor, (model.forms, model.linear, model.constants))
    center, half_width = float(model.centering.center), float(model.centering.half_width)

    def scores(flat: Tensor) -> Tensor:
        z = (flat - center) / half_width
        return torch.einsum("bi,kij,bj->bk", z, forms, z) + z @ linear.T + constants

    return scores


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array.astype("float64"))
