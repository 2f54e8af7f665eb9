"""Truth Serum: poison that makes a model tell who its members are.

    targets (T records, each a member of half of the models)
    poison  r copies of every target, with one wrong label each ──► into every model
    a model without the record believes the wrong label; a member's true label stands against r
    wrong ones, so the model's confidence tells the two apart

The adversary trains shadow models with the same poison and compares by likelihood ratio.
Source: Tramèr et al., Truth serum, CCS 2022, arXiv:2204.00032, section 4.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from attacks.core.arrays import Bools
from attacks.core.oracle import Spent
from attacks.core.records import Records
from attacks.core.result import AttackResult
from attacks.core.threat import ThreatModel
from attacks.errors import DataSplitError
from attacks.membership.outcome import MembershipScores
from attacks.membership.pooling import paired_difference, pooled
from attacks.membership.statistics import gaussian_online, logit_confidence
from attacks.poisoning.networks import NetworkLearner
from attacks.poisoning.setting import PoisonBudget, PoisonedSet
from attacks.training.stack import initialised, membership_masks, train_stack

AUC: Final = "auc"
TPR: Final = "tpr_at_1pct"


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthSerum:
    """Adds r = ``copies`` mislabelled copies of each of ``targets`` records.

    There are ``models`` models, in pairs of opposite memberships. Each one is the target once, and
    a shadow of all others but its opposite.

    Raises DataSplitError for numbers that leave no shadows.
    """

    copies: int = 8
    targets: int = 100
    models: int = 32

    def __post_init__(self) -> None:
        if self.copies < 1 or self.targets < 2 or self.models < 6 or self.models % 2:
            raise DataSplitError(
                f"a copy, 2 targets and an even number of 6 models at least are needed, got "
                f"{self.copies}, {self.targets} and {self.models}"
            )

    def poison(self, targets: Records, *, classes: int, rng: np.random.Generator) -> Records:
        """(T · r) records: each target r times, with one wrong label of its own."""
        shift = rng.integers(1, classes, len(targets))
        wrong = (targets.labels + shift) % classes
        return Records(
            inputs=np.repeat(targets.inputs, self.copies, axis=0),
            labels=np.repeat(wrong, self.copies),
        )

    def run(self, learner: NetworkLearner, pool: Records, rng: np.random.Generator) -> AttackResult:
        """Train all models with and without poison, with the same members and seeds, and compare.

        ``pool``: an even number of records; the first ``targets`` of a shuffle are the targets.
        ``auc`` and ``tpr_at_1pct`` over the targets, with poison, of the likelihood ratio with
        one variance for all records; the baseline is the same without poison, and
        ``auc_rise`` and ``tpr_at_1pct_rise`` are paired by model and record. Rates that the
        non-members cannot support are left out, with a note. Raises DataSplitError for a pool
        that is too small, ShadowError for models that do not learn.
        """
        start = time.perf_counter()
        if len(pool) % 2 or self.targets > len(pool) // 2:
            raise DataSplitError(
                f"{self.targets} targets in a pool of {len(pool)}: an even number of records, at "
                f"least {2 * self.targets}, are needed"
            )
        classes = int(pool.labels.max()) + 1
        shuffled = pool.select(rng.permutation(len(pool)))
        members = membership_masks(self.models, len(pool), rng)
        seeds = [int(seed) for seed in rng.integers(0, 2**31, self.models)]
        targets = shuffled.select(slice(0, self.targets))
        added = self.poison(targets, classes=classes, rng=rng)
        PoisonBudget.of_records(len(added), clean=len(pool) // 2)
        clean = self._scores(learner, shuffled, members, seeds)
        everything = PoisonedSet.of(shuffled, added).records
        always = np.ones((self.models, len(added)), dtype=np.bool_)
        poisoned = self._scores(
            learner, everything, np.concatenate([members, always], axis=1), seeds
        )
        before, _ = pooled(clean, rng)
        after, notes = pooled(poisoned, rng)
        rises = {
            f"{name}_rise": paired_difference(clean, poisoned, name, rng)
            for name in (AUC, TPR)
            if name in after
        }
        share = len(added) / (len(pool) // 2)
        return AttackResult(
            attack="truth serum",
            oracle=learner.description,
            threat_model=ThreatModel.TRAINING_TIME_ADVERSARY,
            primary=AUC,
            metrics={**after, **rises},
            spent=Spent(),
            baseline=before,
            seconds=time.perf_counter() - start,
            notes=(
                f"copies of each of {self.targets} targets: {self.copies}, {share:.0%} of the "
                f"{len(pool) // 2} clean records of each model, {self.models} models",
                *notes,
            ),
            artifact=poisoned,
        )

    def _scores(
        self,
        learner: NetworkLearner,
        pool: Records,
        members: Bools,
        seeds: Sequence[int],
    ) -> tuple[MembershipScores, ...]:
        """Of the pool's first ``targets`` records, for every model in the target's place."""
        stack = train_stack(
            initialised(learner.architecture, seeds), pool, members, learner.config, seeds=seeds
        )
        targets = pool.select(slice(0, self.targets))
        confidence = logit_confidence(stack.logits(targets.inputs), targets.labels)  # (M, T)
        known = members[:, : self.targets]
        found = []
        for model in range(self.models):
            others = np.flatnonzero(np.arange(self.models) // 2 != model // 2)
            scores = gaussian_online(
                confidence[model], confidence[others], known[others], fixed_variance=True
            )
            found.append(MembershipScores(scores=scores, is_member=known[model]))
        return tuple(found)
