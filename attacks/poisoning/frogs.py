"""Feature collision: a record that looks like its base and has the target's features.

    p = argmin ‖f(x) − f(t)‖² + β ‖x − b‖²        f: features, t: target, b: base
    forward    x̂ = x − λ ∇ₓ‖f(x) − f(t)‖²
    backward   x = (x̂ + 2λβ b) / (1 + 2λβ), back into the allowed interval

The poison has the true label of its base. A network that is trained on it learns that the target's
features belong to the base's class. The target itself is never changed.

Source: Shafahi et al., Poison Frogs, arXiv:1804.00792, equation 1, algorithm 1 and section 4. The
backward step is the exact proximal map of the objective; the paper writes β for 2β in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from attacks.core.arrays import Floats, Ints
from attacks.core.records import Records
from attacks.errors import DataSplitError

# (B, *shape) → (B, features), differentiable, in float64.
FeatureMap = Callable[[Tensor], Tensor]
_GROWTH: Final = 1.2
_BATCH: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Collisions:
    """``inputs`` (B, *shape): the poison. ``before``, ``after`` (B,): the distance in features to
    the target of the base and of the poison. ``moved`` (B,): the distance in inputs to the base.
    All distances are Euclidean."""

    inputs: Floats
    before: Floats
    after: Floats
    moved: Floats

    def select(self, rows: Ints) -> Collisions:
        """The collisions at these indices."""
        fields = (self.inputs, self.before, self.after, self.moved)
        inputs, before, after, moved = (each[rows] for each in fields)
        return Collisions(inputs=inputs, before=before, after=after, moved=moved)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureCollision:
    """How poison is made to collide with its target in features.

    ``similarity``: β₀ in β = β₀ (features / inputs)², the paper's scaling. ``steps``: how many
    there are. ``rate``: λ of the first step; it halves for a record whose objective rose and grows
    slowly otherwise. ``opacity``: of a watermark of the target in the base; the paper takes 0.2 to
    0.3 for training from scratch and 0 for transfer learning.

    Raises DataSplitError for values outside their ranges.
    """

    similarity: float = 4.0
    steps: int = 400
    rate: float = 0.05
    opacity: float = 0.0

    def __post_init__(self) -> None:
        if self.similarity < 0 or self.steps < 1 or not self.rate > 0:
            raise DataSplitError(
                f"a collision takes similarity ≥ 0, a step at least and a positive rate, got "
                f"{self.similarity}, {self.steps} and {self.rate}"
            )
        if not 0 <= self.opacity < 1:
            raise DataSplitError(f"a watermark's opacity lies in [0, 1), got {self.opacity}")

    def craft(
        self, features: FeatureMap, bases: Records, targets: Records, *, low: float, high: float
    ) -> Collisions:
        """One poison for each pair of a base and a target, (B, *shape) both.

        Poison is labelled ``bases.labels``. Raises DataSplitError if the numbers of records or
        their shapes differ, or if a target already is of its base's class.
        """
        check_pairs(bases, targets)
        with torch.no_grad():
            aims = torch.cat(
                [
                    features(part).flatten(1)
                    for part in torch.split(
                        torch.as_tensor(targets.inputs, dtype=torch.float64), _BATCH
                    )
                ]
            ).numpy()
        start = watermarked(bases.inputs, targets.inputs, self.opacity)
        found = self.towards(features, start, aims, low=low, high=high)
        moved = (found.inputs - bases.inputs).reshape(len(bases), -1)
        return replace(found, moved=np.linalg.norm(moved, axis=1))

    def towards(
        self,
        features: FeatureMap,
        bases: Floats,
        aims: Floats,
        *,
        low: float,
        high: float,
    ) -> Collisions:
        """As ``craft``, for features (B, F) to reach that need not be any record's."""
        parts = [
            self._craft(features, bases[at : at + _BATCH], aims[at : at + _BATCH], low, high)
            for at in range(0, len(bases), _BATCH)
        ]
        inputs, before, after = (np.concatenate(part) for part in zip(*parts, strict=True))
        moved = np.linalg.norm((inputs - bases).reshape(len(inputs), -1), axis=1)
        return Collisions(inputs=inputs, before=before, after=after, moved=moved)

    def _craft(
        self,
        features: FeatureMap,
        bases: Floats,
        aims: Floats,
        low: float,
        high: float,
    ) -> tuple[Floats, Floats, Floats]:
        base = torch.as_tensor(bases, dtype=torch.float64)
        wanted = torch.as_tensor(aims, dtype=torch.float64)
        with torch.no_grad():
            start = _squares(features(base).flatten(1) - wanted)
        beta = self.similarity * (wanted.shape[1] / base[0].numel()) ** 2
        sides = (len(base), *(1 for _ in base.shape[1:]))
        best, reached = base.clone(), start.clone()  # the base is no distance from itself
        rate = torch.full((len(base),), self.rate, dtype=torch.float64)
        for _ in range(self.steps):
            leaf = best.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(
                _squares(features(leaf).flatten(1) - wanted).sum(), leaf
            )
            pull = (2 * rate * beta).view(sides)
            moved = (best - rate.view(sides) * gradient + pull * base) / (1 + pull)
            moved = moved.clamp(low, high)
            with torch.no_grad():
                found = _squares(features(moved).flatten(1) - wanted)
                found = found + beta * _squares(moved - base)
            better = found < reached
            best = torch.where(better.view(sides), moved, best)
            reached = torch.where(better, found, reached)
            rate = torch.where(better, rate * _GROWTH, rate / 2)
        with torch.no_grad():
            after = _squares(features(best).flatten(1) - wanted).sqrt()
        return best.numpy(), start.sqrt().numpy(), after.numpy()


def watermarked(bases: Floats, targets: Floats, opacity: float) -> Floats:
    """Bases (B, *shape) with the target showing through: γ t + (1 − γ) b."""
    result: Floats = opacity * targets + (1 - opacity) * bases
    return result


def check_pairs(bases: Records, targets: Records) -> None:
    """Raise DataSplitError unless every base has a target of its shape and another class."""
    if not len(bases) or len(bases) != len(targets) or bases.shape != targets.shape:
        raise DataSplitError(
            f"a collision takes a target for each base, of its shape, got {len(bases)} bases of "
            f"shape {bases.shape} and {len(targets)} targets of shape {targets.shape}"
        )
    same = np.flatnonzero(bases.labels == targets.labels)
    if len(same):
        raise DataSplitError(
            f"{len(same)} of {len(bases)} targets are of their base's class already, the first of "
            f"class {int(bases.labels[same[0]])}: take bases of another class"
        )


def _squares(difference: Tensor) -> Tensor:
    """(B, …) → (B,) sums of squares."""
    return difference.flatten(1).square().sum(dim=1)
