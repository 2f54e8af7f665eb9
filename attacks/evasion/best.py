"""The best of what was tried, record by record: a worst case needs no luck of the last step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.evasion.goals import Goal


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
        wide = better.reshape(-1, *[1] * (self.inputs.ndim - 1))
        return Best(
            inputs=torch.where(wide, other.inputs, self.inputs),
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
