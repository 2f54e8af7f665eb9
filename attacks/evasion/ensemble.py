"""AutoAttack's idea (Croce and Hein 2020): attacks that fail for different reasons, in a row.

    all records ──APGD-CE──► open ones ──APGD-DLR──► ──APGD-DLR, wanted classes──► ──Square──► judge

FAB, the fourth attack of the published ensemble, is left out: it looks for the nearest wrong
point, which APGD towards wanted classes rarely misses within a given epsilon.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from attacks.core.intervals import exact
from attacks.core.oracle import Oracle
from attacks.core.result import AttackResult
from attacks.core.threat import ThreatModel
from attacks.errors import DataSplitError
from attacks.evasion.asking import generator_of
from attacks.evasion.best import Best
from attacks.evasion.black_box.square import Square
from attacks.evasion.goals import Goal, Loss, cross_entropy, difference_of_logits_ratio
from attacks.evasion.gradient.apgd import check_tries, search
from attacks.evasion.gradient.gradients import in_hand, predict
from attacks.evasion.norms import Norm
from attacks.evasion.outcome import EvasionAttempt
from attacks.evasion.setting import EvasionData

_LEAST_CLASSES = 3  # that a ratio of differences of logits takes
_LEAST_CLASSES_WANTED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class EvasionEnsemble:
    """APGD of ``steps`` and ``restarts`` up three losses, then Square with ``queries`` a record.

    ``classes``: how many wanted classes, the likeliest wrong ones first, the third APGD tries.
    ``queries`` 0 leaves Square out, as a target that answers labels only does. ``norm`` None
    takes that of the data, another one its ball of equal volume.
    """

    steps: int = 100
    restarts: int = 1
    classes: int = 3
    queries: int = 1000
    norm: Norm | None = None
    repeats: int = 1

    def __post_init__(self) -> None:
        check_tries(self.steps, self.restarts)
        if self.classes < 0 or self.queries < 0:
            raise DataSplitError(
                f"classes and queries are 0 or more, got {self.classes} and {self.queries}"
            )

    def run(self, oracle: Oracle, data: EvasionData, rng: np.random.Generator) -> AttackResult:
        """Move, judge; metrics "after_…" say how many records were open after each attack."""
        data = data.within(self.norm)
        model = in_hand(data.require_model())
        attempt = EvasionAttempt.start("evasion-ensemble", oracle, data, repeats=self.repeats)
        best, extra, notes = Best.none_yet(attempt.inputs), {}, []
        stream, classes = generator_of(rng), oracle.info.classes
        losses: list[tuple[str, Loss]] = [("apgd_ce", cross_entropy)]
        if classes >= (_LEAST_CLASSES if data.wanted is None else _LEAST_CLASSES_WANTED):
            losses.append(("apgd_dlr", difference_of_logits_ratio))
        else:
            notes.append(
                f"ratios of logits are not defined for {classes} classes and were left out"
            )
        for name, loss in losses:
            best = self._apgd(model, best, attempt.goal, attempt, loss, stream)
            extra[f"after_{name}"] = exact(float(len(best.open)), count=len(attempt.inputs))
        if data.wanted is None and self.classes and classes >= _LEAST_CLASSES_WANTED:
            for goal in self._wanted(model, attempt, classes):
                best = self._apgd(model, best, goal, attempt, difference_of_logits_ratio, stream)
            extra["after_wanted"] = exact(float(len(best.open)), count=len(attempt.inputs))
        if self.queries and oracle.info.gives_scores:
            chosen = best.open
            if len(chosen):
                square = Square(queries=self.queries)
                found = square.search(
                    attempt.asker, attempt.inputs[chosen], attempt.goal.select(chosen), data, stream
                )
                best = best.at(chosen, _as_wrong_as(found))
            extra["after_square"] = exact(float(len(best.open)), count=len(attempt.inputs))
        return attempt.finish(
            best.inputs,
            rng,
            threat_model=ThreatModel.WEIGHT_HOLDER,
            notes=tuple(notes),
            extra=extra,
        )

    def _apgd(
        self,
        model: nn.Module,
        best: Best,
        goal: Goal,
        attempt: EvasionAttempt,
        loss: Loss,
        stream: torch.Generator,
    ) -> Best:
        """With what APGD towards ``goal`` finds for the records that are still open."""
        chosen = best.open
        if not len(chosen):
            return best
        found = search(
            model,
            attempt.inputs[chosen],
            goal.select(chosen),
            attempt.data.ball,
            loss=loss,
            steps=self.steps,
            restarts=self.restarts,
            generator=stream,
        )
        return best.at(chosen, _as_wrong_as(found))

    def _wanted(self, model: nn.Module, attempt: EvasionAttempt, classes: int) -> list[Goal]:
        """Goals towards the likeliest wrong class of every record, the second likeliest, …"""
        labels = attempt.goal.labels
        logits = predict(model, attempt.inputs).scatter(1, labels[:, None], -torch.inf)
        order: Tensor = logits.argsort(dim=1, descending=True)
        return [
            Goal(labels=labels, wanted=order[:, rank])
            for rank in range(min(self.classes, classes - 1))
        ]


def _as_wrong_as(found: Best) -> Best:
    """Losses of different kinds do not compare; what counts is who reached its goal first."""
    return replace(found, losses=torch.zeros_like(found.losses))
