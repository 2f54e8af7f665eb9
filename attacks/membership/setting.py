"""What a membership attack is given.

It is the membership game of Salem et al. (arXiv:2212.10986). The challenger draws the members by
coin flips from a pool, trains the target on them, and shows the adversary the pool. The adversary
knows the recipe and trains shadow models of its own. It says for each record whether it is a
member.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from attacks.core.arrays import Bools, Floats
from attacks.core.records import Records
from attacks.errors import DataSplitError, ShadowError

# Fair coins are further from half than this, in standard deviations, once in 500 million pools.
_FAIR: Final = 6.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShadowAnswers:
    """What M shadow models answer for the N records of a pool.

    ``logits`` (M, N, classes) float64; ``is_member`` (M, N): which records each was trained on.
    Raises ShadowError if they do not fit together or are not finite.
    """

    logits: Floats
    is_member: Bools

    def __post_init__(self) -> None:
        if self.logits.ndim != 3 or self.is_member.shape != self.logits.shape[:2]:
            raise ShadowError(
                f"shadow logits of shape {self.logits.shape} do not fit memberships of shape "
                f"{self.is_member.shape}"
            )
        if not np.isfinite(self.logits).all():
            raise ShadowError("a shadow model answers numbers that are not finite: it diverged")
        distinct = {answers[:16].tobytes() for answers in self.logits}
        if len(distinct) != len(self.logits):
            raise ShadowError(
                f"{len(self.logits) - len(distinct)} of {len(self.logits)} shadow models answer "
                "exactly as another does: they are copies, or were read from a stale file"
            )

    def __len__(self) -> int:
        return len(self.logits)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MembershipData:
    """The records in question, the truth about them, and the adversary's shadow models.

    ``pool``: N candidate records. ``is_member`` (N,): the truth about the target, which only
    scoring reads. ``shadows``: shadow models of the same recipe over the same pool.
    ``population``: P further records that no model was trained on, with the shadows' answers,
    ``population_logits`` (M, P, classes). RMIA compares with these; there may be none.

    Raises DataSplitError if shapes do not fit, or if there are more members than non-members, or
    fewer, than coin flips give.
    """

    pool: Records
    is_member: Bools
    shadows: ShadowAnswers
    population: Records
    population_logits: Floats

    def __post_init__(self) -> None:
        if self.is_member.shape != (len(self.pool),):
            raise DataSplitError(
                f"{len(self.pool)} records do not fit memberships of shape {self.is_member.shape}"
            )
        if self.is_member.all() or not self.is_member.any():
            raise DataSplitError("the pool needs both members and non-members")
        members, others = int(self.is_member.sum()), int((~self.is_member).sum())
        if abs(members - others) > _FAIR * (members + others) ** 0.5:
            raise DataSplitError(
                f"{members} members and {others} non-members: members are drawn by coin flips, so "
                "both sides are of one size; drop records of the larger side at random"
            )
        if self.shadows.logits.shape[1] != len(self.pool):
            raise DataSplitError(
                f"the shadows answered {self.shadows.logits.shape[1]} records, the pool has "
                f"{len(self.pool)}"
            )
        if self.population_logits.shape[:2] != (len(self.shadows), len(self.population)):
            raise DataSplitError(
                f"population answers of shape {self.population_logits.shape} do not fit "
                f"{len(self.shadows)} shadows and {len(self.population)} records"
            )
