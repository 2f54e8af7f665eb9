"""Runs a network forward: its logits batch by batch, and a look at what its layers are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from he_infer.activations.layer import PolynomialActivation

_BATCH: Final = 1000


def predict(model: nn.Module, inputs: Tensor) -> Tensor:
    """Logits of the network in evaluation mode, (B, …) → (B, classes)."""
    model.eval()
    with torch.no_grad():
        return torch.cat([model(part) for part in torch.split(inputs, _BATCH)])


def count_correct(model: nn.Module, inputs: NDArray[np.float32], labels: NDArray[np.int64]) -> int:
    """How many of the records, (B, …), get their greatest logit at their label, (B,)."""
    answers = predict(model, torch.from_numpy(inputs)).argmax(dim=1).numpy()
    return int(np.sum(answers == labels))


@contextmanager
def watching(
    layers: Iterable[nn.Module], look: Callable[[nn.Module, tuple[Tensor, ...]], None]
) -> Iterator[None]:
    """Call ``look(layer, inputs)`` before each of ``layers`` runs, while the block lasts."""
    handles = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def range_penalties(layers: Iterable[nn.Module], limit: float) -> Iterator[list[Tensor]]:
    """Collect the range penalty of each polynomial while the network runs inside the block.

    The penalty is that of :meth:`PolynomialActivation.range_penalty`.
    """
    penalties: list[Tensor] = []

    def collect(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, PolynomialActivation)
        penalties.append(layer.range_penalty(inputs[0], limit))

    with watching(layers, collect):
        yield penalties
