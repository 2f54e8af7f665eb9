"""The blind baseline: an attacker who never asks the model must not do better than a coin.

If it does, members differ from non-members by themselves, and every membership figure of that split
measures the split (Das, Zhang, Tramèr 2024, arXiv:2406.16201).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attacks.errors import DataSplitError
from attacks.metrics.intervals import Estimate
from attacks.metrics.roc import auc
from attacks.records import Records


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindVerdict:
    """``holds``: 0.5 is not below the interval of ``auc``; ``note`` says what that means."""

    auc: Estimate
    holds: bool
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindBaseline:
    """A forest of ``trees`` on inputs and label, cross-fitted in ``folds`` parts."""

    trees: int = 100
    folds: int = 5

    def scores(
        self, pool: Records, is_member: NDArray[np.bool_], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """(N,): probability of membership for records the forest was not fitted on.

        Raises DataSplitError with fewer than two records a fold on either side.
        """
        from sklearn.ensemble import ExtraTreesClassifier
        from sklearn.model_selection import StratifiedKFold

        if is_member.shape != (len(pool),):
            raise DataSplitError(f"{len(pool)} records, memberships of shape {is_member.shape}")
        fewest = min(int(is_member.sum()), int((~is_member).sum()))
        if fewest < 2 * self.folds:
            raise DataSplitError(
                f"the blind baseline needs {2 * self.folds} members and non-members, got {fewest}"
            )
        features = np.column_stack([pool.inputs.reshape(len(pool), -1), pool.labels])
        seed = int(rng.integers(2**31))
        found = np.empty(len(pool))
        folds = StratifiedKFold(self.folds, shuffle=True, random_state=seed)
        for fit, held_out in folds.split(features, is_member):
            forest = ExtraTreesClassifier(self.trees, min_samples_leaf=3, random_state=seed)
            forest.fit(features[fit], is_member[fit])
            found[held_out] = forest.predict_proba(features[held_out])[:, 1]
        return found

    def judge(
        self, pool: Records, is_member: NDArray[np.bool_], rng: np.random.Generator
    ) -> BlindVerdict:
        """The verdict on a split."""
        figure = auc(self.scores(pool, is_member, rng), is_member)
        if figure.low > 0.5:
            note = (
                f"the split leaks: a classifier that never asks the model tells members from "
                f"non-members with AUC {figure}; no membership figure of this run means anything "
                "until both are drawn from the same records at random"
            )
            return BlindVerdict(auc=figure, holds=False, note=note)
        note = f"a classifier that never asks the model gets AUC {figure}: no better than a coin"
        return BlindVerdict(auc=figure, holds=True, note=note)
