"""How far an input may be moved: the ball of L∞ and that of L2.

Everything is a torch tensor (B, *shape) of changes, one per record; epsilon is in input units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Norm(Protocol):
    """One way to measure a change, and the ball that it gives."""

    @property
    def name(self) -> str:
        """For tables: "Linf" or "L2"."""
        ...

    def size(self, change: Tensor) -> Tensor:
        """(B, *shape) → (B,), in input units."""
        ...

    def project(self, change: Tensor, epsilon: float) -> Tensor:
        """The nearest change of size epsilon or less."""
        ...

    def steepest(self, gradient: Tensor) -> Tensor:
        """The change of size 1 along which a function with this gradient rises most; 0 for 0."""
        ...

    def random(self, like: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
        """Changes drawn uniformly from the ball, shaped and typed as ``like``."""
        ...

    def diameter(self, span: float, features: int) -> float:
        """Size of the longest change within [0, span]^features."""
        ...

    def equivalent(self, epsilon: float, features: int) -> float:
        """Radius of the ball that has the volume of L∞'s of radius ``epsilon``."""
        ...


@dataclass(frozen=True, slots=True)
class Linf:
    """The largest change of a value."""

    @property
    def name(self) -> str:
        return "Linf"

    def size(self, change: Tensor) -> Tensor:
        return change.flatten(1).abs().amax(dim=1)

    def project(self, change: Tensor, epsilon: float) -> Tensor:
        return change.clamp(-epsilon, epsilon)

    def steepest(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def random(self, like: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
        drawn = torch.rand(like.shape, generator=generator, dtype=like.dtype)
        return epsilon * (2 * drawn - 1)

    def diameter(self, span: float, features: int) -> float:
        del features
        return span

    def equivalent(self, epsilon: float, features: int) -> float:
        del features
        return epsilon


@dataclass(frozen=True, slots=True)
class L2:
    """The Euclidean length of a change."""

    @property
    def name(self) -> str:
        return "L2"

    def size(self, change: Tensor) -> Tensor:
        return change.flatten(1).square().sum(dim=1).sqrt()

    def project(self, change: Tensor, epsilon: float) -> Tensor:
        size = beside(self.size(change), change)
        return change * (epsilon / size.clamp(min=epsilon))

    def steepest(self, gradient: Tensor) -> Tensor:
        # Divided by the largest entry first: squares of tiny gradients underflow.
        largest = beside(Linf().size(gradient), gradient)
        scaled = gradient / torch.where(largest > 0, largest, torch.ones_like(largest))
        size = beside(self.size(scaled), gradient)
        return scaled / torch.where(size > 0, size, torch.ones_like(size))

    def random(self, like: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
        direction = self.steepest(torch.randn(like.shape, generator=generator, dtype=like.dtype))
        share = torch.rand(len(like), generator=generator, dtype=like.dtype)
        return direction * beside(epsilon * share ** (1 / like[0].numel()), like)

    def diameter(self, span: float, features: int) -> float:
        return span * math.sqrt(features)

    def equivalent(self, epsilon: float, features: int) -> float:
        # π^(d/2) r^d / Γ(d/2 + 1) = (2ε)^d
        log_root = math.lgamma(features / 2 + 1) / features
        return 2 * epsilon * math.exp(log_root) / math.sqrt(math.pi)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ball:
    """Where a record may be moved: ``epsilon`` far in ``norm``, every value in [low, high]."""

    norm: Norm
    epsilon: float
    low: float
    high: float

    def nearest(self, center: Tensor, point: Tensor) -> Tensor:
        """The points (B, *shape), moved back to where records at ``center`` may go."""
        # The interval holds the center, so clipping to it leads no further away from it.
        return self.clip(center + self.norm.project(point - center, self.epsilon))

    def clip(self, point: Tensor) -> Tensor:
        return point.clamp(self.low, self.high)


def beside(values: Tensor, records: Tensor) -> Tensor:
    """(B,) → (B, 1, …), to multiply records of this shape."""
    return values.reshape(-1, *[1] * (records.ndim - 1))
