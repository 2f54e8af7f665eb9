"""Projected gradient descent (Madry et al. 2018): steps up the loss, back into the ball each time.

random start in the ball ──► x + step · steepest(∇loss) ──project, clip──► x' ──► …
                              ▲───────────────── steps times ─────────────────┘
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from attacks.core.oracle import Oracle
from attacks.core.result import AttackResult
from attacks.core.threat import ThreatModel
from attacks.errors import DataSplitError
from attacks.evasion.asking import generator_of
from attacks.evasion.best import Best, Iterates, best_of_starts
from attacks.evasion.goals import Goal, Loss, cross_entropy
from attacks.evasion.gradient.gradients import in_hand, rise
from attacks.evasion.norms import Ball, Norm
from attacks.evasion.outcome import EvasionAttempt
from attacks.evasion.setting import EvasionData


@dataclass(frozen=True, slots=True, kw_only=True)
class PGD:
    """``steps`` of ``step_share`` times epsilon up the cross-entropy, from ``restarts`` starts.

    ``random_start``: somewhere in the ball, else at the record, once. The worst of all iterates
    is kept. ``norm`` None takes that of the data, another one its ball of equal volume. Works on
    the weights; the target is asked ``repeats`` times about every moved record.
    """

    name: str = "pgd"
    steps: int = 40
    step_share: float = 0.1
    restarts: int = 1
    random_start: bool = True
    norm: Norm | None = None
    repeats: int = 1

    def __post_init__(self) -> None:
        check_steps(self.steps, self.step_share, 1.0)
        if self.restarts < 1 or (self.restarts > 1 and not self.random_start):
            raise DataSplitError(
                f"one start, or several random ones, got {self.restarts}: starts that are not "
                "random are all the same"
            )

    def run(self, oracle: Oracle, data: EvasionData, rng: np.random.Generator) -> AttackResult:
        """Move, judge; AbilityError without weights."""
        data = data.within(self.norm)
        model = in_hand(data.require_model())
        attempt = EvasionAttempt.start(self.name, oracle, data, repeats=self.repeats)
        best = self.search(model, attempt.inputs, attempt.goal, data.ball, generator_of(rng))
        return attempt.finish(best.inputs, rng, threat_model=ThreatModel.WEIGHT_HOLDER)

    def search(
        self, model: nn.Module, inputs: Tensor, goal: Goal, ball: Ball, generator: torch.Generator
    ) -> Best:
        """The best of all iterates of all restarts, for each of ``inputs`` (B, *shape)."""

        def climb(center: Tensor, part: Goal) -> Iterates:
            return ascend(
                model,
                center,
                part,
                ball,
                loss=cross_entropy,
                steps=self.steps,
                step=self.step_share * ball.epsilon,
                generator=generator if self.random_start else None,
            )

        return best_of_starts(inputs, goal, climb, starts=self.restarts)


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
        Ball(norm=norm, epsilon=epsilon, low=low, high=high),
        loss=cross_entropy,
        steps=steps,
        step=step,
        generator=generator,
        judge_last=False,
    ):
        last = moved
    return last


def ascend(
    model: nn.Module,
    inputs: Tensor,
    goal: Goal,
    ball: Ball,
    *,
    loss: Loss,
    steps: int,
    step: float,
    generator: torch.Generator | None,
    judge_last: bool = True,
) -> Iterates:
    """Iterates with their logits and losses, the start first: steps + 1 of them.

    ``generator`` None starts from the inputs themselves. Without ``judge_last`` the last iterate
    comes with the logits and losses of the one before it, which saves a pass.
    """
    center = inputs.detach()
    moved = center
    if generator is not None:
        moved = ball.clip(center + ball.norm.random(center, ball.epsilon, generator))
    logits, losses, gradient = rise(model, moved, goal, loss)
    yield moved, logits, losses
    for count in range(1, steps + 1):
        moved = ball.nearest(center, moved + step * ball.norm.steepest(gradient))
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
