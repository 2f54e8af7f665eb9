"""From moved records to an AttackResult, beside a baseline of random changes of the same size.

clean labels ──► records that are labelled right ──attack──► moved ──judge──► fooled
                        └──────random change of size ε──────► moved ──judge──► baseline
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attacks.core.arrays import Floats
from attacks.core.intervals import Estimate, clopper_pearson
from attacks.core.oracle import Oracle, Spent
from attacks.core.result import AttackResult
from attacks.core.threat import ThreatModel
from attacks.errors import TooFewRecordsError
from attacks.evasion.asking import Asker, generator_of
from attacks.evasion.goals import Goal
from attacks.evasion.setting import EvasionData

# Clean labels, the judge's and the baseline's: what is asked of every record beside the attack.
OVERHEAD: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evasion:
    """What became of every record: ``moved`` (B, *shape), those that were wrong to begin with as
    they were; ``right`` (B,): labelled right before; ``fooled`` (B,): right, and moved to what
    the adversary wanted; ``sizes`` (B,): how far, in the attack's norm."""

    moved: Floats
    right: NDArray[np.bool_]
    fooled: NDArray[np.bool_]
    sizes: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvasionAttempt:
    """One attack under way. ``right``: indices of the records that the target labels right, the
    only ones that are attacked; ``inputs`` and ``goal``: theirs. ``labels``: what the target said
    to all records."""

    attack: str
    asker: Asker
    data: EvasionData
    spent: Spent
    started: float
    labels: Tensor
    right: Tensor
    inputs: Tensor
    goal: Goal

    @classmethod
    def start(
        cls, attack: str, oracle: Oracle, data: EvasionData, *, repeats: int = 1
    ) -> EvasionAttempt:
        """Ask for the clean labels; TooFewRecordsError if not one of them is right."""
        data.check_fits(oracle.info)
        asker = Asker(oracle=oracle, repeats=repeats)
        spent, started = oracle.ledger.spent, time.perf_counter()
        inputs, goal = data.inputs(), data.goal()
        labels = asker.labels(inputs)
        right = torch.nonzero(labels == goal.labels)[:, 0]
        if not len(right):
            raise TooFewRecordsError(
                f"{oracle.info.name} labels none of {len(inputs)} records right, so none can be "
                "moved to be wrong: give more records",
                needed=len(inputs) + 1,
            )
        return cls(
            attack=attack,
            asker=asker,
            data=data,
            spent=spent,
            started=started,
            labels=labels,
            right=right,
            inputs=inputs[right],
            goal=goal.select(right),
        )

    def finish(
        self,
        moved: Tensor,
        rng: np.random.Generator,
        *,
        threat_model: ThreatModel,
        notes: tuple[str, ...] = (),
        extra: dict[str, Estimate] | None = None,
    ) -> AttackResult:
        """Judge ``moved``, one for each record in ``right``; ``artifact`` is an Evasion."""
        data, oracle = self.data, self.asker.oracle
        answered = self.asker.labels(moved)
        fooled, still = self.goal.reached(answered), answered == self.goal.labels
        spent = oracle.ledger.spent - self.spent
        seconds = time.perf_counter() - self.started
        idle = self._noise(rng)
        noise_labels = self.asker.labels(idle)
        whole = data.inputs()
        whole[self.right] = moved
        sizes = data.norm.size(whole - data.inputs())
        right, reached = _mask(self.right, len(whole)), _mask(self.right[fooled], len(whole))
        return AttackResult(
            attack=self.attack,
            oracle=oracle.info.name,
            threat_model=threat_model,
            primary="success",
            metrics={
                "success": _share(fooled),
                "robust_accuracy": clopper_pearson(int(still.sum()), len(whole)),
                "accuracy": clopper_pearson(len(self.right), len(whole)),
                **(extra or {}),
            },
            baseline={
                "success": _share(self.goal.reached(noise_labels)),
                "robust_accuracy": clopper_pearson(
                    int((noise_labels == self.goal.labels).sum()), len(whole)
                ),
            },
            spent=spent,
            seconds=seconds,
            notes=(
                f"{data.norm.name} changes of up to {data.epsilon:.3g} within "
                f"[{data.low:g}, {data.high:g}]; success is of the {len(self.right)} of "
                f"{len(whole)} records that were labelled right; the baseline is a random change "
                "of that size",
                *notes,
            ),
            artifact=Evasion(moved=whole.numpy(), right=right, fooled=reached, sizes=sizes.numpy()),
        )

    def _noise(self, rng: np.random.Generator) -> Tensor:
        data = self.data
        drawn = torch.randn(self.inputs.shape, generator=generator_of(rng), dtype=torch.float64)
        change = data.epsilon * data.norm.steepest(drawn)
        return (self.inputs + change).clamp(data.low, data.high)


def _share(reached: Tensor) -> Estimate:
    return clopper_pearson(int(reached.sum()), len(reached))


def _mask(chosen: Tensor, count: int) -> NDArray[np.bool_]:
    mask = np.zeros(count, dtype=np.bool_)
    mask[chosen.numpy()] = True
    return mask
