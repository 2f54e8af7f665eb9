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
from attacks.evasion.norms import Norm
from attacks.evasion.outcome import Attempt
from attacks.evasion.setting import EvasionData


def perturb(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Norm,
    low: float,
    high: float,
) -> Tensor:
    """The inputs (B, *shape) moved by ``epsilon`` along the steepest rise, within [low, high].

    Goodfellow et al. 2015, section 4; with L2 the fast gradient method. Raises DataSplitError for
    an epsilon that is not positive.
    """
    return leap(model, inputs, Goal(labels=labels), epsilon=epsilon, norm=norm, low=low, high=high)


def leap(
    model: nn.Module,
    inputs: Tensor,
    goal: Goal,
    *,
    epsilon: float,
    norm: Norm,
    low: float,
    high: float,
) -> Tensor:
    """One step towards a goal of any kind; else as ``perturb``."""
    if not epsilon > 0:
        raise DataSplitError(f"epsilon is positive, got {epsilon}")
    _, _, gradient = rise(model, inputs, goal, cross_entropy)
    return (inputs + epsilon * norm.steepest(gradient)).clamp(low, high)


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
        attempt = Attempt.start("fgsm", oracle, data, repeats=self.repeats)
        moved = leap(
            model,
            attempt.inputs,
            attempt.goal,
            epsilon=data.epsilon,
            norm=data.norm,
            low=data.low,
            high=data.high,
        )
        return attempt.finish(moved, rng, threat_model=ThreatModel.WEIGHT_HOLDER)
