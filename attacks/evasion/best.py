"""The best of all tries for each record, so that an attack does not depend on its last step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.evasion.goals import Goal
from attacks.evasion.norms import beside


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Best:
    """``inputs`` (B, *shape): of every record the try that reached its goal with the highest
    loss, else the one with the highest loss. ``reached`` (B,); ``losses`` (B,)."""

    inputs: Tensor
    reached: Tensor
    losses: Tensor

    @classmethod
    def none_yet(cls, inputs: Tensor) -> Best:
        """The records as they are, before anything was tried."""
        return cls(
            inputs=inputs.clone(),
            reached=torch.zeros(len(inputs), dtype=torch.bool),
            losses=torch.full((len(inputs),), -torch.inf, dtype=inputs.dtype),
        )

    def with_try(self, inputs: Tensor, logits: Tensor, losses: Tensor, goal: Goal) -> Best:
        """The better of what was there and this try, for every record."""
        reached = goal.reached(logits.argmax(dim=1))
        return self.with_other(Best(inputs=inputs, reached=reached, losses=losses))

    def with_other(self, other: Best) -> Best:
        """The better of two, for every record; equally good ones stay."""
        better = (other.reached & ~self.reached) | (
            (other.reached == self.reached) & (other.losses > self.losses)
        )
        return Best(
            inputs=torch.where(beside(better, self.inputs), other.inputs, self.inputs),
            reached=torch.where(better, other.reached, self.reached),
            losses=torch.where(better, other.losses, self.losses),
        )

    def at(self, chosen: Tensor, other: Best) -> Best:
        """With ``other``, of the records at these indices only, where it is better."""
        part = Best(
            inputs=self.inputs[chosen], reached=self.reached[chosen], losses=self.losses[chosen]
        ).with_other(other)
        inputs, reached, losses = self.inputs.clone(), self.reached.clone(), self.losses.clone()
        inputs[chosen], reached[chosen], losses[chosen] = part.inputs, part.reached, part.losses
        return Best(inputs=inputs, reached=reached, losses=losses)

    @property
    def open(self) -> Tensor:
        """Indices of the records whose goal nothing reached yet."""
        return torch.nonzero(~self.reached)[:, 0]


# Iterates (B, *shape) with their logits (B, classes) and losses (B,), the start first.
Iterates = Iterator[tuple[Tensor, Tensor, Tensor]]


def best_of_starts(
    inputs: Tensor, goal: Goal, climb: Callable[[Tensor, Goal], Iterates], *, starts: int
) -> Best:
    """The best of all iterates of all starts; only records still open are started again."""
    best = Best.none_yet(inputs)
    for _ in range(starts):
        chosen = best.open
        if not len(chosen):
            break
        found, part = Best.none_yet(inputs[chosen]), goal.select(chosen)
        for moved, logits, losses in climb(inputs[chosen], part):
            found = found.with_try(moved, logits, losses, part)
        best = best.at(chosen, found)
    return best
