"""The fast gradient sign method (Goodfellow et al. 2015): one step of full size up the loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from attacks.core.oracle import Oracle
from attacks.core.result import AttackResult
from attacks.core.threat import ThreatModel
from attacks.errors import DataSplitError
from attacks.evasion.goals import Goal, cross_entropy
from attacks.evasion.gradient.gradients import in_hand, rise
from attacks.evasion.norms import Ball, Norm
from attacks.evasion.outcome import EvasionAttempt
from attacks.evasion.setting import EvasionData


def step(model: nn.Module, inputs: Tensor, goal: Goal, ball: Ball) -> Tensor:
    """The inputs (B, *shape) moved as far as ``ball`` allows along the steepest rise.

    Goodfellow et al. 2015, section 4; with L2 the fast gradient method. Raises DataSplitError for
    an epsilon that is not positive.
    """
    if not ball.epsilon > 0:
        raise DataSplitError(f"epsilon is positive, got {ball.epsilon}")
    _, _, gradient = rise(model, inputs, goal, cross_entropy)
    return ball.clip(inputs + ball.epsilon * ball.norm.steepest(gradient))


@dataclass(frozen=True, slots=True, kw_only=True)
class FGSM:
    """One step on the weights; ``norm`` None takes that of the data, another one its ball of
    equal volume. The target is asked ``repeats`` times about every moved record."""

    norm: Norm | None = None
    repeats: int = 1

    def run(self, oracle: Oracle, data: EvasionData, rng: np.random.Generator) -> AttackResult:
        """Move, judge; AbilityError without weights."""
        data = data.within(self.norm)
        model = in_hand(data.require_model())
        attempt = EvasionAttempt.start("fgsm", oracle, data, repeats=self.repeats)
        moved = step(model, attempt.inputs, attempt.goal, data.ball)
        return attempt.finish(moved, rng, threat_model=ThreatModel.WEIGHT_HOLDER)
