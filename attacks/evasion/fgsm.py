"""The fast gradient sign method (Goodfellow et al. 2015): one step of full size up the loss."""

from __future__ import annotations

from torch import Tensor, nn

from attacks.errors import DataSplitError
from attacks.evasion.goals import Goal, cross_entropy
from attacks.evasion.gradients import rise
from attacks.evasion.norms import Norm


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
