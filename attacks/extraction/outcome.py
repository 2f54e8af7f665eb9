"""From a stolen model to an AttackResult: judged, beside the baseline, with what it cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from attacks.core.intervals import Estimate
from attacks.core.oracle import Oracle, OracleInfo, Spent
from attacks.core.result import AttackResult
from attacks.core.threat import ThreatModel
from attacks.errors import BudgetError, DataSplitError
from attacks.extraction.baseline import no_oracle
from attacks.extraction.fidelity import fidelity, fidelity_curve, judge
from attacks.extraction.learners import Learner
from attacks.extraction.setting import ExtractionData, ReferenceAnswers, StolenModel


class Budgeted(Protocol):
    """An attack that asks about at most ``queries`` records, and needs a least number of them."""

    @property
    def queries(self) -> int: ...

    def minimum_queries(self, info: OracleInfo) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionAttempt:
    """What an attack knew before its first query, to tell afterwards what it cost."""

    attack: str
    oracle: Oracle
    data: ExtractionData
    queries: int
    spent: Spent
    started: float

    @classmethod
    def start(
        cls,
        attack: str,
        budgeted: Budgeted,
        oracle: Oracle,
        data: ExtractionData,
        *,
        needs_scores: bool = False,
    ) -> ExtractionAttempt:
        """Check, before anything is spent, that the attack can work.

        ``attack``: its name. ``budgeted``: the attack itself, which says how much it asks. Raises
        AbilityError where it needs scores and only labels come back, DataSplitError if the
        evaluator judges another target, and BudgetError, which names the minimum, if the queries
        cannot be enough.
        """
        if needs_scores:
            oracle.info.require_scores(attack)
        _check_reference(oracle, data)
        check_budget(attack, budgeted.queries, budgeted.minimum_queries(oracle.info))
        return cls(
            attack=attack,
            oracle=oracle,
            data=data,
            queries=budgeted.queries,
            spent=oracle.ledger.spent,
            started=time.perf_counter(),
        )

    def finish(
        self,
        stolen: StolenModel,
        rng: np.random.Generator,
        *,
        learner: Learner | None = None,
        used: int | None = None,
        stages: Sequence[tuple[int, StolenModel]] = (),
        up_to_constant: bool = False,
        has_logits: bool = True,
        extra: dict[str, Estimate] | None = None,
        notes: Sequence[str] = (),
    ) -> AttackResult:
        """Judge ``stolen``, and a baseline that asked nothing, on the same answers.

        ``learner``: fits the baseline to the adversary's own records, as for ``no_oracle``.
        ``used``: records the attack asked about, where it did not ask about all it may.
        ``stages``: models that fewer records gave, for the curve. ``has_logits`` False: the
        stolen scores are not meant to be logits, so no logit error is reported. ``extra``:
        figures beside the judgement's.
        """
        data, queries = self.data, self.queries if used is None else used
        spent = self.oracle.ledger.spent - self.spent
        seconds = time.perf_counter() - self.started
        baseline = no_oracle(data, rng, learner=learner)
        answers = data.answers or ReferenceAnswers.of(data, rng)
        seen = answers if has_logits else _without_logits(answers)
        verdict = judge(stolen, data, rng, up_to_constant=up_to_constant, reference=seen)
        points = [
            (count, fidelity(model, answers.test_inputs, answers.test))
            for count, model in stages
            if count < queries
        ]
        points.append((queries, verdict.fidelity_test))
        return AttackResult(
            attack=self.attack,
            oracle=self.oracle.info.name,
            threat_model=ThreatModel.MALICIOUS_CLIENT,
            primary="fidelity_test",
            metrics={**verdict.metrics(), **(extra or {})},
            baseline=judge(baseline, data, rng, reference=_without_logits(answers)).metrics(),
            curves={"fidelity": fidelity_curve(points)},
            spent=spent,
            seconds=seconds,
            notes=tuple(notes),
            artifact=stolen,
        )


def check_budget(attack: str, queries: int, minimum: int) -> None:
    """Raise BudgetError, which names the minimum, if ``queries`` cannot be enough."""
    if queries < minimum:
        raise BudgetError(
            f"{attack} needs at least {minimum} queries for this target, got {queries}: "
            f"raise the budget to {minimum} or more"
        )


def check_curve(points: int) -> None:
    """Raise DataSplitError for a negative number of points of a curve."""
    if points < 0:
        raise DataSplitError(f"a curve has 0 or more points, got {points}")


def smaller_budgets(queries: int, points: int) -> tuple[int, ...]:
    """The budgets of a curve below ``queries``, upwards: each half the next."""
    return tuple(queries >> halvings for halvings in range(points, 0, -1))


def _check_reference(oracle: Oracle, data: ExtractionData) -> None:
    """Raise DataSplitError, before anything is spent, if the evaluator judges another target."""
    ours, theirs = oracle.info, data.reference.info
    if (ours.input_shape, ours.classes) != (theirs.input_shape, theirs.classes):
        raise DataSplitError(
            f"{ours.name} takes records {ours.input_shape} for {ours.classes} classes, but the "
            f"reference {theirs.name} takes {theirs.input_shape} for {theirs.classes}: "
            "give the same target twice"
        )
    if data.test.shape != ours.input_shape:
        raise DataSplitError(
            f"test records of shape {data.test.shape} do not fit {ours.name}, which takes "
            f"{ours.input_shape}"
        )


def _without_logits(answers: ReferenceAnswers) -> ReferenceAnswers:
    """The same answers with probabilities only, where there are scores at all."""
    test, uniform = answers.test, answers.uniform
    if test.logits is None and uniform.logits is None:
        return answers
    return replace(
        answers,
        test=replace(test, logits=None, probabilities=test.require_probabilities()),
        uniform=replace(uniform, logits=None, probabilities=uniform.require_probabilities()),
    )
