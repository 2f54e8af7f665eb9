"""Auto-PGD (Croce and Hein 2020): PGD with momentum that halves its own step where it stalls.

step 2ε ──► iterate ──► checkpoint: rose too seldom, or no better than at the last one?
   ▲                         │ yes: halve the step, go back to the best point
   └─────────────────────────┘
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from attacks.core.oracle import Oracle
from attacks.core.result import AttackResult
from attacks.core.threat import ThreatModel
from attacks.errors import DataSplitError
from attacks.evasion.asking import generator_of
from attacks.evasion.best import Best, Iterates, best_of_starts
from attacks.evasion.goals import Goal, Loss, cross_entropy, difference_of_logits_ratio
from attacks.evasion.gradient.gradients import in_hand, rise
from attacks.evasion.norms import Ball, Norm
from attacks.evasion.outcome import EvasionAttempt
from attacks.evasion.setting import EvasionData

# Section 3 of the paper: the first checkpoint, how much nearer each next one lies, and how near
# at least, as shares of the steps; the share of steps that have to rise; the weight of the step.
_FIRST: Final = 0.22
_NEARER: Final = 0.03
_NEAREST: Final = 0.06
_RISING: Final = 0.75
_MOMENTUM: Final = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class APGD:
    """``steps`` of Auto-PGD up ``loss`` from ``restarts`` random starts, the worst of all kept.

    ``norm`` None takes that of the data, another one its ball of equal volume. Works on the
    weights; the target is asked ``repeats`` times about every moved record, and ``name`` is what
    tables call it.
    """

    name: str = "apgd-ce"
    loss: Loss = cross_entropy
    steps: int = 100
    restarts: int = 1
    norm: Norm | None = None
    repeats: int = 1

    def __post_init__(self) -> None:
        check_tries(self.steps, self.restarts)

    @classmethod
    def of_ratios(cls, *, steps: int = 100, restarts: int = 1, repeats: int = 1) -> APGD:
        """Up the difference of logits ratio, which no scaling of the logits flattens."""
        return cls(
            name="apgd-dlr",
            loss=difference_of_logits_ratio,
            steps=steps,
            restarts=restarts,
            repeats=repeats,
        )

    def run(self, oracle: Oracle, data: EvasionData, rng: np.random.Generator) -> AttackResult:
        """Move, judge; AbilityError without weights, or for too few classes for the loss."""
        data = data.within(self.norm)
        model = in_hand(data.require_model())
        attempt = EvasionAttempt.start(self.name, oracle, data, repeats=self.repeats)
        best = search(
            model,
            attempt.inputs,
            attempt.goal,
            data.ball,
            loss=self.loss,
            steps=self.steps,
            restarts=self.restarts,
            generator=generator_of(rng),
        )
        return attempt.finish(best.inputs, rng, threat_model=ThreatModel.WEIGHT_HOLDER)


def search(
    model: nn.Module,
    inputs: Tensor,
    goal: Goal,
    ball: Ball,
    *,
    loss: Loss,
    steps: int,
    restarts: int,
    generator: torch.Generator,
) -> Best:
    """The best of all iterates of all restarts, for each of ``inputs`` (B, *shape)."""

    def climb(center: Tensor, part: Goal) -> Iterates:
        return _climb(model, center, part, ball, loss=loss, steps=steps, generator=generator)

    return best_of_starts(inputs, goal, climb, starts=restarts)


@dataclass(slots=True)
class _Rises:
    """How often each record's loss rose since the last checkpoint, to see where it stalls."""

    steps: int
    best_at_check: Tensor
    window: int = 0
    count: int = 0
    rises: Tensor = field(default_factory=lambda: torch.zeros(0))
    halved: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))

    def __post_init__(self) -> None:
        self.window = max(int(_FIRST * self.steps), 1)
        self.rises = torch.zeros(len(self.best_at_check))
        # As if the step had been halved before: the first checkpoint looks at rises alone.
        self.halved = torch.ones(len(self.best_at_check), dtype=torch.bool)

    def stalled(self, rose: Tensor, best: Tensor) -> Tensor:
        """Which records halve their step after this one; none between checkpoints."""
        self.rises += rose
        self.count += 1
        if self.count < self.window:
            return torch.zeros_like(self.halved)
        found = (self.rises <= _RISING * self.window) | (
            ~self.halved & (self.best_at_check >= best)
        )
        nearer, nearest = max(int(_NEARER * self.steps), 1), max(int(_NEAREST * self.steps), 1)
        self.window = max(self.window - nearer, nearest)
        self.count, self.rises = 0, torch.zeros_like(self.rises)
        self.halved, self.best_at_check = found, best.clone()
        return found


def _climb(
    model: nn.Module,
    center: Tensor,
    goal: Goal,
    ball: Ball,
    *,
    loss: Loss,
    steps: int,
    generator: torch.Generator,
) -> Iterates:
    """Iterates with their logits and losses, the start first."""
    norm = ball.norm
    moved = ball.nearest(center, center + norm.random(center, ball.epsilon, generator))
    logits, losses, gradient = rise(model, moved, goal, loss)
    yield moved, logits, losses
    size = torch.full((len(center), *[1] * (center.ndim - 1)), 2 * ball.epsilon, dtype=center.dtype)
    before, best, best_gradient, best_losses = moved, moved, gradient, losses
    rises = _Rises(steps=steps, best_at_check=losses.clone())
    for count in range(steps):
        straight = ball.nearest(center, moved + size * norm.steepest(gradient))
        share = _MOMENTUM if count else 1.0
        ahead = ball.nearest(
            center, moved + share * (straight - moved) + (1 - share) * (moved - before)
        )
        before, moved, losses_before = moved, ahead, losses
        logits, losses, gradient = rise(model, moved, goal, loss)
        yield moved, logits, losses
        better = losses > best_losses
        wide = better.reshape(size.shape)
        best = torch.where(wide, moved, best)
        best_gradient = torch.where(wide, gradient, best_gradient)
        best_losses = torch.where(better, losses, best_losses)
        back = rises.stalled(losses > losses_before, best_losses).reshape(size.shape)
        size = torch.where(back, size / 2, size)
        moved = torch.where(back, best, moved)
        gradient = torch.where(back, best_gradient, gradient)


def check_tries(steps: int, restarts: int) -> None:
    """Raise DataSplitError unless both are positive."""
    if steps < 1 or restarts < 1:
        raise DataSplitError(
            f"an attack takes at least one step and one start, got {steps} and {restarts}"
        )
