"""A network in the adversary's hands: logits and gradients by its inputs, in parts that fit."""

from __future__ import annotations

import copy
from typing import Final

import torch
from torch import Tensor, nn

from attacks.evasion.goals import Goal, Loss

_FORWARD_RECORDS: Final = 1024


def in_hand(model: nn.Module) -> nn.Module:
    """A copy in float64 and evaluation mode, without gradients of its weights.

    Single precision rounds the softmax of a sure network to 0 and 1, and its gradient to nothing.
    """
    return copy.deepcopy(model).double().eval().requires_grad_(False)


def logits_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """(B, *shape) → (B, classes); one output z stands for the logits (0, z)."""
    outputs: Tensor = model(inputs)
    if outputs.ndim == 1:
        outputs = outputs[:, None]
    return torch.cat([torch.zeros_like(outputs), outputs], 1) if outputs.shape[1] == 1 else outputs


def predict(model: nn.Module, inputs: Tensor) -> Tensor:
    """Logits (B, classes), without a gradient."""
    with torch.no_grad():
        return torch.cat([logits_of(model, part) for part in torch.split(inputs, _FORWARD_RECORDS)])


def rise(model: nn.Module, inputs: Tensor, goal: Goal, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, classes), losses (B,) and the losses' gradients by the inputs (B, *shape).

    Weights get no gradient, whatever they require.
    """
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for at in range(0, len(inputs), _FORWARD_RECORDS):
        part = inputs[at : at + _FORWARD_RECORDS].detach().requires_grad_()
        logits = logits_of(model, part)
        losses = loss(logits, goal.select(torch.arange(at, at + len(part))))
        (gradient,) = torch.autograd.grad(losses.sum(), part)
        found.append((logits.detach(), losses.detach(), gradient))
    logits, losses, gradients = (torch.cat(parts) for parts in zip(*found, strict=True))
    return logits, losses, gradients
