"""The blind baseline: an adversary who never asks the model must not do better than a coin.

If it does, members differ from non-members without any model, and every membership figure of that
split measures the split (Das, Zhang, Tramèr 2024, arXiv:2406.16201).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from attacks.core.arrays import Bools
from attacks.core.intervals import Estimate
from attacks.core.records import Records
from attacks.core.roc import auc
from attacks.errors import DataSplitError
from attacks.membership.outcome import MembershipScores

LEAST: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindVerdict:
    """What the blind baseline says about a split.

    ``holds``: 0.5 does not lie below the interval of ``auc``. ``note`` says what that means.
    """

    auc: Estimate
    holds: bool
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindBaseline:
    """A forest of ``trees`` on inputs and label, fitted on one half of the pool.

    The other half is judged. Cross-fitting would judge all records, but where nothing can be
    learned its scores lie below 0.5: leaving a part out of the training tilts the rest the other
    way.
    """

    trees: int = 200

    def scores(self, pool: Records, is_member: Bools, rng: np.random.Generator) -> MembershipScores:
        """Probability of membership for the half of the records that the forest did not see.

        Raises DataSplitError with fewer than LEAST members or non-members in either half.
        """
        from sklearn.ensemble import ExtraTreesClassifier

        if is_member.shape != (len(pool),):
            raise DataSplitError(f"{len(pool)} records, memberships of shape {is_member.shape}")
        order = rng.permutation(len(pool))
        fit, judged = order[: len(pool) // 2], order[len(pool) // 2 :]
        fewest = min(
            int(side[half].sum()) for side in (is_member, ~is_member) for half in (fit, judged)
        )
        if fewest < LEAST:
            raise DataSplitError(
                f"the blind baseline needs about {2 * LEAST} members and as many non-members, got "
                f"{int(is_member.sum())} and {int((~is_member).sum())}"
            )
        features = np.column_stack([pool.inputs.reshape(len(pool), -1), pool.labels])
        forest = ExtraTreesClassifier(
            self.trees, min_samples_leaf=3, random_state=int(rng.integers(2**31))
        )
        forest.fit(features[fit], is_member[fit])
        return MembershipScores(
            scores=forest.predict_proba(features[judged])[:, 1], is_member=is_member[judged]
        )

    def judge(self, pool: Records, is_member: Bools, rng: np.random.Generator) -> BlindVerdict:
        """The verdict on a split."""
        found = self.scores(pool, is_member, rng)
        figure = auc(found.scores, found.is_member)
        if figure.low > 0.5:
            note = (
                f"the split leaks: a classifier that never asks the model tells members from "
                f"non-members with AUC {figure}; no membership figure of this run means anything "
                "until both are drawn from the same records at random"
            )
            return BlindVerdict(auc=figure, holds=False, note=note)
        note = f"a classifier that never asks the model gets AUC {figure}: no better than a coin"
        return BlindVerdict(auc=figure, holds=True, note=note)
