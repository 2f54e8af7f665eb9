"""Checks that an evaluation of evasion is sound, after Carlini et al. 2019.

    one step ≤ many steps ≤ steps that size themselves      more steps, more epsilon: no weaker
    asking ≤ gradients, record by record at their best       epsilon of the whole interval: all fall
    gradients are not zero

A check that fails means that the evaluation makes the model look more robust than it is. The usual
cause is a masked gradient, which misleads the attacks on the weights.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from attacks.core.intervals import Estimate, clopper_pearson, exact
from attacks.core.oracle import Oracle
from attacks.core.result import AttackResult
from attacks.core.threat import ThreatModel
from attacks.errors import DataSplitError
from attacks.evasion.asking import generator_of
from attacks.evasion.best import Best
from attacks.evasion.black_box.square import Square
from attacks.evasion.goals import cross_entropy, difference_of_logits_ratio
from attacks.evasion.gradient.apgd import search
from attacks.evasion.gradient.fgsm import step
from attacks.evasion.gradient.gradients import in_hand, rise
from attacks.evasion.gradient.pgd import PGD
from attacks.evasion.outcome import EvasionAttempt
from attacks.evasion.setting import EvasionData

# Every check by the name of its metric.
TITLES: Final = {
    "pgd_over_fgsm": "Many steps beat one",
    "apgd_over_pgd": "Steps that size themselves beat fixed ones",
    "more_steps": "More steps are not weaker",
    "more_epsilon": "A larger epsilon is not weaker",
    "unbounded_fools_all": "Without a bound every record is fooled",
    "gradients_present": "Gradients are not zero",
    "gradients_over_queries": "Gradients beat asking",
}
# What fails where the gradient is masked.
TELLING: Final = frozenset({"unbounded_fools_all", "gradients_present", "gradients_over_queries"})
_MOST_FLAT: Final = 0.05  # share of records that may have no gradient
_LEAST_CLASSES: Final = 3  # that a ratio of differences of logits takes
_FEW_STEPS: Final = 4  # times fewer


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """``figure``: success of what should be stronger, or the share that the check is about."""

    name: str
    holds: bool
    figure: Estimate
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SanityChecks:
    """Runs attacks of ``steps`` steps and Square of ``queries`` a record against each other.

    ``queries`` 0 leaves Square out, as a target that answers labels only does. Every record is
    asked ``repeats`` times a question.
    """

    steps: int = 40
    queries: int = 100
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.steps < _FEW_STEPS or self.queries < 0:
            raise DataSplitError(
                f"checks take at least {_FEW_STEPS} steps and 0 or more queries, got "
                f"{self.steps} and {self.queries}"
            )

    def run(self, oracle: Oracle, data: EvasionData, rng: np.random.Generator) -> AttackResult:
        """Attack, compare; ``artifact`` is a tuple of Check, and each failed one is a note.

        A metric with a check's name is 1 where it holds. AbilityError without weights.
        """
        model = in_hand(data.require_model())
        attempt = EvasionAttempt.start("sanity-checks", oracle, data, repeats=self.repeats)
        trial = _Trial(model=model, attempt=attempt, data=data, steps=self.steps, rng=rng)
        found = self._checks(trial)
        failed = [check for check in found if not check.holds]
        spent = oracle.ledger.spent - attempt.spent
        return AttackResult(
            attack="sanity-checks",
            oracle=oracle.info.name,
            threat_model=ThreatModel.WEIGHT_HOLDER,
            primary="checks_held",
            metrics={
                "checks_held": exact(1 - len(failed) / len(found), count=len(found)),
                **{check.name: exact(float(check.holds), count=1) for check in found},
            },
            spent=spent,
            seconds=time.perf_counter() - attempt.started,
            notes=tuple(f"{check.name}: {check.note}" for check in failed),
            artifact=found,
        )

    def _checks(self, trial: _Trial) -> tuple[Check, ...]:
        data, few = trial.data, self.steps // _FEW_STEPS
        widest = data.norm.diameter(data.high - data.low, math.prod(data.records.shape))
        once = trial.fgsm()
        many = trial.pgd(self.steps, data)
        hurried = trial.pgd(few, data)
        sized = trial.apgd(data)
        half = trial.pgd(self.steps, replace(data, epsilon=data.epsilon / 2))
        everywhere = replace(data, epsilon=widest)
        unbounded = trial.pgd(self.steps, everywhere) | trial.apgd(everywhere)
        white = once | many | sized
        flat = trial.flat()
        found = [
            _no_stronger("pgd_over_fgsm", "one step", once, "many steps", many),
            _no_stronger("apgd_over_pgd", "fixed steps", many, "steps that size themselves", sized),
            _no_stronger("more_steps", f"{few} steps", hurried, f"{self.steps} steps", many),
            _no_stronger("more_epsilon", "half of epsilon", half, "all of it", many),
            Check(
                name="unbounded_fools_all",
                holds=bool(unbounded.all()),
                figure=_share(unbounded),
                note=f"with an epsilon of {widest:.3g} only {_words(_share(unbounded))} of the "
                "records are fooled, where every record can be turned into any other",
            ),
            Check(
                name="gradients_present",
                holds=bool(flat.double().mean() <= _MOST_FLAT),
                figure=_share(flat),
                note=f"{_words(_share(flat))} of the records have a gradient of zero",
            ),
        ]
        if self.queries and trial.answers_scores:
            asked = trial.square(self.queries)
            found.append(
                _no_stronger(
                    "gradients_over_queries", "asking alone", asked, "attacks on the weights", white
                )
            )
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Trial:
    """Attacks on the same records, each judged by the oracle; all answer (B,) who was fooled."""

    model: nn.Module
    attempt: EvasionAttempt
    data: EvasionData
    steps: int
    rng: np.random.Generator

    @property
    def answers_scores(self) -> bool:
        return self.attempt.asker.oracle.info.gives_scores

    def fgsm(self) -> Tensor:
        moved = step(self.model, self.attempt.inputs, self.attempt.goal, self.data.ball)
        return self._judge(moved)

    def pgd(self, steps: int, data: EvasionData) -> Tensor:
        # The same starts for all, so that fewer steps are the first of more.
        stream = torch.Generator().manual_seed(0)
        best = PGD(steps=steps).search(
            self.model, self.attempt.inputs, self.attempt.goal, data.ball, stream
        )
        return self._judge(best.inputs)

    def apgd(self, data: EvasionData) -> Tensor:
        """Up both losses: either alone is flat on some models."""
        losses = [cross_entropy]
        if self.attempt.asker.oracle.info.classes > _LEAST_CLASSES:
            losses.append(difference_of_logits_ratio)
        best = Best.none_yet(self.attempt.inputs)
        for loss in losses:
            found = search(
                self.model,
                self.attempt.inputs,
                self.attempt.goal,
                data.ball,
                loss=loss,
                steps=self.steps,
                restarts=1,
                generator=generator_of(self.rng),
            )
            best = best.with_other(replace(found, losses=torch.zeros_like(found.losses)))
        return self._judge(best.inputs)

    def square(self, queries: int) -> Tensor:
        best = Square(queries=queries).search(
            self.attempt.asker,
            self.attempt.inputs,
            self.attempt.goal,
            self.data,
            generator_of(self.rng),
        )
        return self._judge(best.inputs)

    def flat(self) -> Tensor:
        _, _, gradient = rise(self.model, self.attempt.inputs, self.attempt.goal, cross_entropy)
        return gradient.flatten(1).abs().amax(dim=1) == 0

    def _judge(self, moved: Tensor) -> Tensor:
        return self.attempt.goal.reached(self.attempt.asker.labels(moved))


def _no_stronger(name: str, weak: str, weaker: Tensor, strong: str, stronger: Tensor) -> Check:
    """Success of the weaker one lies within the interval of the stronger one, or below it."""
    low, high = _share(weaker), _share(stronger)
    return Check(
        name=name,
        holds=low.value <= high.high,
        figure=high,
        note=f"{weak} fooled {_words(low)} of the records, {strong} only {_words(high)}",
    )


def _share(chosen: Tensor) -> Estimate:
    return clopper_pearson(int(chosen.sum()), len(chosen))


def _words(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"
