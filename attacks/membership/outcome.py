"""What every membership attack asks and what it reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from attacks.core.arrays import Bools, Floats
from attacks.core.oracle import LOGITS, PROBABILITIES, Answer, Oracle
from attacks.core.result import AttackResult
from attacks.core.roc import FPRS, auc, roc_curve, split, supported, tpr_at_fpr
from attacks.core.threat import ThreatModel
from attacks.errors import AbilityError, DataSplitError, ShadowError
from attacks.membership.calibration import metrics_at, shadow_threshold
from attacks.membership.setting import MembershipData


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MembershipScores:
    """Scores (N,) of the records of one target, higher for members, and the truth (N,)."""

    scores: Floats
    is_member: Bools

    def __post_init__(self) -> None:
        split(self.scores, self.is_member)


def fpr_name(fpr: float) -> str:
    """The name of the figure at that rate, such as tpr_at_1pct."""
    return f"tpr_at_{100 * fpr:g}pct"


def report(
    name: str,
    scores: Callable[[Oracle, MembershipData, np.random.Generator], Floats],
    oracle: Oracle,
    data: MembershipData,
    rng: np.random.Generator,
    *,
    notes: Sequence[str] = (),
) -> AttackResult:
    """Run ``scores`` on one target and judge it.

    A rate that the non-members cannot support is left out, with a note that says how many are
    needed. "TPR at 1 % FPR" is read off the target's own ROC, which is how papers compare attacks.
    An adversary has to set the threshold beforehand, on a shadow in the target's place: the rates
    that this attains stand beside it, and the ε bound rests on them.
    """
    before, start = oracle.ledger.spent, time.perf_counter()
    found = MembershipScores(scores=scores(oracle, data, rng), is_member=data.is_member)
    seconds = time.perf_counter() - start
    fprs, refused = supported(FPRS, int((~data.is_member).sum()))
    metrics = {"auc": auc(found.scores, found.is_member)}
    for fpr in fprs:
        metrics[fpr_name(fpr)] = tpr_at_fpr(found.scores, found.is_member, fpr).tpr
    threshold = shadow_threshold(scores, oracle.info, data, rng)
    if threshold is None:
        refused += ("no threshold could be set on shadows: they were asked about the pool only",)
    else:
        metrics |= metrics_at(threshold, found.scores, found.is_member)
    return AttackResult(
        attack=name,
        oracle=oracle.info.name,
        threat_model=ThreatModel.MALICIOUS_CLIENT,
        primary="auc",
        metrics=metrics,
        spent=oracle.ledger.spent - before,
        seconds=seconds,
        curves={"roc": roc_curve(found.scores, found.is_member)},
        notes=(*notes, *refused),
        artifact=found,
    )


def ask_scores(oracle: Oracle, data: MembershipData) -> Floats:
    """Logits or log-probabilities of the pool, (N, classes); errors as for ``ask_pool``.

    AbilityError for an oracle of labels comes before anything is paid for.
    """
    if not oracle.info.answers & {LOGITS, PROBABILITIES}:
        raise AbilityError(
            "this attack needs logits or probabilities, and the oracle answers only labels"
        )
    return ask_pool(oracle, data).require_scores()


def ask_pool(oracle: Oracle, data: MembershipData) -> Answer:
    """The target's answers to the whole pool.

    Raises DataSplitError if the pool does not fit the target, ShadowError if the shadows answer
    another number of classes.
    """
    if data.pool.shape != oracle.info.input_shape:
        raise DataSplitError(
            f"records of shape {data.pool.shape} do not fit a target that takes "
            f"{oracle.info.input_shape}"
        )
    if int(data.pool.labels.max()) >= oracle.info.classes:
        raise DataSplitError(
            f"label {int(data.pool.labels.max())} does not fit {oracle.info.classes} classes"
        )
    if data.shadows.logits.shape[2] != oracle.info.classes:
        raise ShadowError(
            f"the shadows answer {data.shadows.logits.shape[2]} classes, the target "
            f"{oracle.info.classes}: they are of another architecture"
        )
    return oracle.query(data.pool.inputs)
