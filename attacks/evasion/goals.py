"""What an adversary wants of every record, and the losses that rise on the way there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from attacks.errors import AbilityError

_SMALLEST = 1e-12  # of the denominator of a ratio of logits


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Goal:
    """``labels`` (B,): the true ones. ``wanted`` (B,): classes to be taken for, None for any
    but the true one."""

    labels: Tensor
    wanted: Tensor | None = None

    def reached(self, predicted: Tensor) -> Tensor:
        """Which of the predicted labels (B,) the adversary is content with."""
        return predicted != self.labels if self.wanted is None else predicted == self.wanted

    def select(self, chosen: Tensor) -> Goal:
        """The goals of these records."""
        wanted = None if self.wanted is None else self.wanted[chosen]
        return Goal(labels=self.labels[chosen], wanted=wanted)


# (logits (B, classes), goal) → (B,), larger where the adversary is nearer to what it wants.
Loss = Callable[[Tensor, Goal], Tensor]


def cross_entropy(logits: Tensor, goal: Goal) -> Tensor:
    """Of the true label; of the wanted one, negative, where there is one."""
    if goal.wanted is None:
        return functional.cross_entropy(logits, goal.labels, reduction="none")
    return -functional.cross_entropy(logits, goal.wanted, reduction="none")


def margin(logits: Tensor, goal: Goal) -> Tensor:
    """How far the best wrong logit lies above the true one, or the wanted one above all others."""
    ours = goal.labels if goal.wanted is None else goal.wanted
    own = logits.gather(1, ours[:, None])[:, 0]
    others = logits.scatter(1, ours[:, None], -torch.inf).amax(dim=1)
    return others - own if goal.wanted is None else own - others


def difference_of_logits_ratio(logits: Tensor, goal: Goal) -> Tensor:
    """DLR (Croce and Hein 2020, section 4): a margin that no factor of the logits changes.

    Raises AbilityError for fewer than three classes, four with wanted ones.
    """
    needed = 3 if goal.wanted is None else 4
    if logits.shape[1] < needed:
        raise AbilityError(
            f"the ratio of differences of logits takes {needed} classes or more, the model has "
            f"{logits.shape[1]}: use the cross-entropy"
        )
    ordered = logits.sort(dim=1, descending=True).values
    own = logits.gather(1, goal.labels[:, None])[:, 0]
    if goal.wanted is None:
        return margin(logits, goal) / (ordered[:, 0] - ordered[:, 2] + _SMALLEST)
    aim = logits.gather(1, goal.wanted[:, None])[:, 0]
    scale = ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2
    return (aim - own) / (scale + _SMALLEST)
