"""An adaptive adversary: PGD with the detector's score in its loss.

    loss = min(margin, κ) − w · max(0, score / threshold − s)

While a record is classified right, the attack raises the margin. Once it is wrong by κ, the attack
only lowers the score, until the record is undetected. Carlini and Wagner 2017 (arXiv:1705.07263)
bypassed ten detectors by putting them into the loss. Athalye, Carlini and Wagner 2018 replaced the
gradient of steps that have none (BPDA).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from attacks.defences.detection import InputFilter
from attacks.errors import DataSplitError
from attacks.evasion.goals import Goal, margin
from attacks.evasion.gradient.gradients import in_hand, logits_of, predict
from attacks.evasion.gradient.pgd import ascend
from attacks.evasion.norms import Ball, Linf, Norm
from attacks.training.perturbed import Batch

# Scores are divided by the threshold, which may be 0.
_LEAST_SCALE: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveEvasion:
    """``epsilon`` in ``norm``; ``steps`` of ``step_share`` of epsilon for each of ``weights``, w.

    ``overshoot``: κ, in logits. ``slack``: s, below 1, so that the score comes to lie below the
    threshold and not on it.
    """

    epsilon: float
    norm: Norm = Linf()  # noqa: RUF009  frozen and without state
    steps: int = 200
    step_share: float = 0.05
    weights: tuple[float, ...] = (0.1, 1.0, 10.0)
    overshoot: float = 0.2
    slack: float = 0.9

    def __post_init__(self) -> None:
        if not self.weights or not all(weight > 0 for weight in self.weights):
            raise DataSplitError("an adaptive attack needs positive weights of the score")
        if not (self.epsilon > 0 and self.overshoot > 0 and 0 < self.slack < 1):
            raise DataSplitError(
                f"epsilon and overshoot are positive and slack below 1, got {self.epsilon}, "
                f"{self.overshoot} and {self.slack}"
            )

    def moved(self, model: nn.Module, before: InputFilter, batch: Batch) -> Tensor:
        """(B, *shape): misclassified and undetected where that was found, else misclassified,
        else the last iterate. In float64, by the weights of ``model`` and the filter's threshold.
        """
        network = in_hand(model)
        both = _WithScore(network, before.detector.gradient_score(network))
        goal = Goal(labels=batch.labels)
        inputs = batch.inputs.double()
        scale = max(before.threshold, _LEAST_SCALE)
        best = inputs.clone()
        # 0: nothing found, 1: misclassified, 2: undetected as well.
        rank = torch.full((len(inputs),), -1)
        for weight in self.weights:

            def loss(logits: Tensor, goal: Goal, weight: float = weight) -> Tensor:
                shortfall = margin(logits[:, :-1], goal).clamp(max=self.overshoot)
                alarm = torch.relu(logits[:, -1] / scale - self.slack)
                return shortfall - weight * alarm

            for moved, logits, _ in ascend(
                both,
                inputs,
                goal,
                Ball(norm=self.norm, epsilon=self.epsilon, low=batch.low, high=batch.high),
                loss=loss,
                steps=self.steps,
                step=self.step_share * self.epsilon,
                generator=batch.generator,
            ):
                wrong = goal.reached(logits[:, :-1].argmax(dim=1))
                found = wrong.long() + (wrong & (logits[:, -1] <= before.threshold)).long()
                better = (found > rank) | ((found == 0) & (rank == 0))
                best[better] = moved[better]
                rank[better] = found[better]
        return best


def misclassified(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """(B,): where the model in the clear is wrong."""
    return predict(in_hand(model), inputs.double()).argmax(dim=1) != labels


class _WithScore(nn.Module):
    """Logits with the detector's score as one column more, (B, classes + 1)."""

    def __init__(self, model: nn.Module, score: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.score = score

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([logits_of(self.model, inputs), self.score(inputs)[:, None]], dim=1)
