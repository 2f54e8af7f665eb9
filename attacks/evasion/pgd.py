"""Projected gradient descent (Madry et al. 2018): steps up the loss, back into the ball each time.

random start in the ball ──► x + step · steepest(∇loss) ──project, clip──► x' ──► …
                              ▲───────────────── steps times ─────────────────┘
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from attacks.errors import DataSplitError
from attacks.evasion.goals import Goal, Loss, cross_entropy
from attacks.evasion.gradients import rise
from attacks.evasion.norms import Norm


def perturb(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Norm,
    steps: int,
    step: float,
    low: float,
    high: float,
    generator: torch.Generator,
) -> Tensor:
    """The last of ``steps`` iterates from a random start, (B, *shape), typed as ``inputs``.

    ``labels`` (B,) int64: the true ones. ``epsilon``, ``step``: in input units. Every record stays
    within ``epsilon`` of where it was and within [low, high]. The model is used in the mode it is
    in, and its weights get no gradient. Raises DataSplitError for a size that is not positive.
    """
    check_steps(steps, step, epsilon)
    last = inputs
    for moved, _, _ in ascend(
        model,
        inputs,
        Goal(labels=labels),
        loss=cross_entropy,
        epsilon=epsilon,
        norm=norm,
        steps=steps,
        step=step,
        low=low,
        high=high,
        generator=generator,
        judge_last=False,
    ):
        last = moved
    return last


def ascend(
    model: nn.Module,
    inputs: Tensor,
    goal: Goal,
    *,
    loss: Loss,
    epsilon: float,
    norm: Norm,
    steps: int,
    step: float,
    low: float,
    high: float,
    generator: torch.Generator | None,
    judge_last: bool = True,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Iterates (B, *shape) with their logits and losses, the start first: steps + 1 of them.

    ``generator`` None starts from the inputs themselves. Without ``judge_last`` the last iterate
    comes with the logits and losses of the one before it, which saves a pass.
    """
    center = inputs.detach()
    moved = center
    if generator is not None:
        moved = (center + norm.random(center, epsilon, generator)).clamp(low, high)
    logits, losses, gradient = rise(model, moved, goal, loss)
    yield moved, logits, losses
    for count in range(1, steps + 1):
        change = norm.project(moved + step * norm.steepest(gradient) - center, epsilon)
        # The box holds the center, so clipping to it leads no further away from it.
        moved = (center + change).clamp(low, high)
        if judge_last or count < steps:
            logits, losses, gradient = rise(model, moved, goal, loss)
        yield moved, logits, losses


def check_steps(steps: int, step: float, epsilon: float) -> None:
    """Raise DataSplitError unless all are positive."""
    if steps < 1 or not step > 0 or not epsilon > 0:
        raise DataSplitError(
            f"an attack takes at least one step, of positive size, in a ball of positive size, "
            f"got {steps}, {step} and {epsilon}"
        )
