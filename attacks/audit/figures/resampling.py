"""Membership figures of all twins, and their differences, from one set of resamples.

Models and records are resampled independently of each other, as ``attacks.membership.pooling``
does it. Here every resample serves all twins at once: that pairs them, and it costs a fraction of
one bootstrap for each twin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attacks.audit.figures.statistics import of_resamples
from attacks.core.intervals import Estimate
from attacks.core.roc import FPRS, supported
from attacks.errors import DataSplitError, TooFewRecordsError
from attacks.membership.outcome import MembershipScores
from attacks.membership.pooling import figures

RESAMPLES: Final = 400
METHOD: Final = "bootstrap by model and record"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TwinResamples:
    """``values``: a figure of each twin; ``drawn`` (resamples,): the same on every resample, the
    same resamples for all. ``notes``: rates that even all targets together cannot support."""

    values: Mapping[str, Mapping[str, float]]
    drawn: Mapping[str, Mapping[str, NDArray[np.float64]]]
    models: int
    notes: tuple[str, ...]

    def metrics(self, twin: str) -> dict[str, Estimate]:
        """The figures of one twin with their intervals."""
        return {
            name: of_resamples(value, self.drawn[twin][name], method=METHOD, count=self.models)
            for name, value in self.values[twin].items()
        }

    def difference(self, before: str, after: str, metric: str) -> Estimate:
        """after − before, resample by resample."""
        return of_resamples(
            self.values[after][metric] - self.values[before][metric],
            self.drawn[after][metric] - self.drawn[before][metric],
            method=f"paired {METHOD}",
            count=self.models,
        )


def resample_twins(
    twins: Mapping[str, Sequence[MembershipScores]],
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
) -> TwinResamples:
    """AUC, the mean over models, and TPR at pooled FPRs, for every twin of two or more targets.

    ``twins``: by name, the scores of the same targets in the same order. Raises
    TooFewRecordsError for one target, DataSplitError if memberships differ between twins.
    """
    stacked = {name: np.stack([each.scores for each in scored]) for name, scored in twins.items()}
    truths = [np.stack([each.is_member for each in scored]) for scored in twins.values()]
    members = truths[0]  # (K, N)
    if len(members) < 2:
        raise TooFewRecordsError("figures are pooled over at least 2 targets", needed=2)
    if any(truth.shape != members.shape or (truth != members).any() for truth in truths):
        raise DataSplitError("only twins with the same members can be compared")
    fprs, notes = supported(FPRS, int((~members).sum()))
    values = {name: figures(scores, members, fprs) for name, scores in stacked.items()}
    samples = []
    for _ in range(resamples):
        models, records = (rng.integers(0, size, size) for size in members.shape)
        grid = np.ix_(models, records)
        truth = members[grid]
        samples.append(
            {name: figures(scores[grid], truth, fprs) for name, scores in stacked.items()}
        )
    drawn = {
        name: {metric: np.array([sample[name][metric] for sample in samples]) for metric in found}
        for name, found in values.items()
    }
    return TwinResamples(values=values, drawn=drawn, models=len(members), notes=notes)
