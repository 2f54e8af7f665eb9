"""Equation solving: the scores that come back are equations in the target's parameters.

Tramèr et al. 2016, "Stealing machine learning models via prediction APIs", section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from attacks.core.intervals import exact
from attacks.core.oracle import Answer, Oracle, OracleInfo
from attacks.core.result import AttackResult
from attacks.extraction.outcome import ExtractionAttempt, check_budget
from attacks.extraction.setting import ExtractionData
from attacks.extraction.tramer.family import Family

POOR_FIT: Final = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class EquationSolving:
    """Ask ``queries`` records in one request and solve for the parameters of ``family``.

    ``sweep``: smaller numbers of records to solve with too, prefixes of the same request, for
    the curve; None leaves the choice to the family. ``run`` raises AbilityError for an oracle
    that answers labels only, BudgetError below the family's minimum. Metrics beside those of the
    judgement: "unknowns", "queries" and "queries_per_unknown", as the paper reports them, and
    "relative_residual".
    """

    family: Family
    queries: int
    sweep: tuple[int, ...] | None = None

    def minimum_queries(self, info: OracleInfo) -> int:
        return self.family.minimum_queries(info)

    def run(self, oracle: Oracle, data: ExtractionData, rng: np.random.Generator) -> AttackResult:
        info = oracle.info
        name = "equation-solving"
        check_budget(name, min(self.sweep or (self.queries,)), self.minimum_queries(info))
        attempt = ExtractionAttempt.start(name, self, oracle, data, needs_scores=True)
        records = self.family.records(info, self.queries, rng)
        answer = oracle.query(records)
        sweep = self.family.sweep(info, self.queries) if self.sweep is None else self.sweep
        stages = [
            (count, self.family.solve(records[:count], _first(answer, count), info, rng).model)
            for count in sweep
            if count < self.queries
        ]
        solution = self.family.solve(records, answer, info, rng)
        notes = list(solution.notes)
        if solution.relative_residual > POOR_FIT:
            notes.append(
                f"the answers do not fit the supposed family: {solution.relative_residual:.1%} "
                "of their spread stays unexplained"
            )
        unknowns = self.family.unknowns(info)
        return attempt.finish(
            solution.model,
            rng,
            learner=self.family.learner,
            stages=stages,
            up_to_constant=solution.up_to_constant,
            has_logits=solution.has_logits,
            extra={
                "unknowns": exact(unknowns, count=1),
                "queries": exact(self.queries, count=1),
                "queries_per_unknown": exact(self.queries / unknowns, count=1),
                "relative_residual": exact(solution.relative_residual, count=self.queries),
            },
            notes=notes,
        )


def _first(answer: Answer, count: int) -> Answer:
    """The scores of the first ``count`` records."""
    return Answer(
        labels=answer.labels[:count],
        logits=None if answer.logits is None else answer.logits[:count],
        probabilities=None if answer.probabilities is None else answer.probabilities[:count],
    )
