"""Sets thresholds on a shadow model, before the target is judged.

One shadow takes the place of the target, and the attack runs against it with the other shadows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from attacks.core.arrays import Bools, Floats
from attacks.core.intervals import Estimate
from attacks.core.oracle import LABELS, LOGITS, Answer, MeteredOracle, Oracle, OracleInfo
from attacks.core.roc import epsilon_lower_bound, rates_at, threshold_for
from attacks.errors import AbilityError, ShadowError
from attacks.membership.setting import MembershipData, ShadowAnswers

Scores = Callable[[Oracle, MembershipData, np.random.Generator], Floats]
_RATE: Final = 0.1


class _ShadowOracle(MeteredOracle):
    """Answers what a shadow answered for the pool and the population, and nothing else."""

    def __init__(self, info: OracleInfo, data: MembershipData, shadow: int) -> None:
        super().__init__(replace(info, name="shadow", answers=frozenset({LOGITS, LABELS})))
        self._known = (
            (data.pool.inputs, data.shadows.logits[shadow]),
            (data.population.inputs, data.population_logits[shadow]),
        )

    def _answer(self, records: Floats) -> Answer:
        for inputs, logits in self._known:
            if records.shape == inputs.shape and np.array_equal(records, inputs):
                return Answer.of_logits(logits)
        raise AbilityError("a shadow's answers to other records than the pool's are not at hand")


def shadow_threshold(
    scores: Scores, info: OracleInfo, data: MembershipData, rng: np.random.Generator
) -> float | None:
    """The threshold that accuses a tenth of a shadow's non-members, or None.

    The shadow in the target's place is left out of the shadows, and so is its opposite, whose
    memberships would tell the truth about it. The answer is None if too few shadows are left, or
    if the attack asks about records that the shadows were never asked about.
    """
    truth = data.shadows.is_member[0]
    if truth.all() or not truth.any():
        return None
    opposite = (data.shadows.is_member == ~truth).all(axis=1)
    left = ~opposite
    left[0] = False
    stand_in = replace(
        data,
        is_member=truth,
        shadows=ShadowAnswers(
            logits=data.shadows.logits[left], is_member=data.shadows.is_member[left]
        ),
        population_logits=data.population_logits[left],
    )
    try:
        # Requests are not split here: a table has no batch.
        stage = _ShadowOracle(replace(info, batch=None), data, 0)
        found = scores(stage, stand_in, rng)
    except (AbilityError, ShadowError):
        return None
    return threshold_for(found[~truth], _RATE)


def metrics_at(threshold: float, scores: Floats, is_member: Bools) -> dict[str, Estimate]:
    """The target's figures at a threshold that was set without it.

    They are both rates with Clopper-Pearson intervals, and the ε below which differential privacy
    is refuted.
    """
    point = rates_at(scores, is_member, threshold)
    members, others = scores[is_member], scores[~is_member]
    return {
        "tpr_at_shadow_threshold": point.tpr,
        "fpr_at_shadow_threshold": point.fpr,
        "epsilon_lower_bound": epsilon_lower_bound(
            int((members > threshold).sum()),
            len(members),
            int((others > threshold).sum()),
            len(others),
        ),
    }
