"""Membership from labels alone (Choquette-Choo et al. 2021): members are more robust.

A network keeps the label of a member under stronger noise than that of other records.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attacks.core.arrays import Floats
from attacks.core.oracle import Oracle
from attacks.core.result import AttackResult
from attacks.errors import BudgetError
from attacks.membership.outcome import ask_pool, report
from attacks.membership.setting import MembershipData


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOnly:
    """Share of noisy copies that keep the true label (Choquette-Choo et al. 2021, section 5.2).

    ``copies``: noisy copies of each record. The standard deviations of their normal noise run
    evenly up to ``noise``, a fraction of the input range, to which copies are clipped. Asks
    (1 + copies) · N records.
    """

    copies: int = 9
    noise: float = 0.3

    def __post_init__(self) -> None:
        if self.copies < 1 or not self.noise > 0:
            raise BudgetError("copies must be at least 1 and noise positive")

    def scores(self, oracle: Oracle, data: MembershipData, rng: np.random.Generator) -> Floats:
        """(N,): the share of the record and its copies that have the true label.

        Ties are broken at random, less than a step apart: a rate between two steps is attained by
        a randomised test, as Neyman and Pearson do it.
        """
        labels, inputs = data.pool.labels, data.pool.inputs
        kept = (ask_pool(oracle, data).labels == labels).astype(np.float64)
        span = oracle.info.high - oracle.info.low
        for step in range(1, self.copies + 1):
            scale = self.noise * span * step / self.copies
            noisy = inputs + rng.normal(0.0, scale, inputs.shape)
            answer = oracle.query(np.clip(noisy, oracle.info.low, oracle.info.high))
            kept += answer.labels == labels
        kept += rng.random(len(labels))
        share: Floats = kept / (2 + self.copies)
        return share

    def run(self, oracle: Oracle, data: MembershipData, rng: np.random.Generator) -> AttackResult:
        return report("label-only robustness", self.scores, oracle, data, rng)
