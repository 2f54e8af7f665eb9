"""A trial is one attack on one twin of one target; this is what is kept of it.

An attack that cannot work is a trial too: it is "refused", with the reason, and never missing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from attacks.audit.document.records import DONE, Status
from attacks.core.intervals import Estimate
from attacks.core.oracle import Spent
from attacks.core.result import AttackResult, Curve
from attacks.membership.outcome import MembershipScores


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """``status``: "done", "refused" (the attack cannot work here, see ``reason``) or "failed" (it
    should have worked and did not). Only a trial that is done has figures; only one of a membership
    attack has ``scores`` (N,), and ``members``, which writes the truth as N digits 0 or 1."""

    status: Status
    reason: str | None = None
    primary: str = ""
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    baseline: Mapping[str, Estimate] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    scores: tuple[float, ...] | None = None
    members: str | None = None

    @classmethod
    def of(cls, result: AttackResult, notes: tuple[str, ...] = ()) -> Trial:
        """What ``result`` says; its artifact is kept if it is membership scores."""
        trial = cls(
            status=DONE,
            primary=result.primary,
            metrics=result.metrics,
            baseline=result.baseline,
            curves=result.curves,
            spent=result.spent,
            seconds=result.seconds,
            notes=(*result.notes, *notes),
        )
        kept = isinstance(result.artifact, MembershipScores)
        return trial.with_scores(result.artifact) if kept else trial

    def with_scores(self, scored: MembershipScores) -> Trial:
        """The same trial with the scores of every record."""
        return dataclasses.replace(
            self,
            scores=tuple(scored.scores.tolist()),
            members="".join("1" if member else "0" for member in scored.is_member),
        )

    @property
    def scored(self) -> MembershipScores | None:
        """The scores of every record, of a membership attack."""
        if self.scores is None or self.members is None:
            return None
        return MembershipScores(
            scores=np.asarray(self.scores, dtype=np.float64),
            is_member=np.array([digit == "1" for digit in self.members]),
        )
