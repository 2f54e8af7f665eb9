"""Attacks with one threshold: Yeom's loss, and Song and Mittal's modified entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attacks.core.intervals import Estimate, clopper_pearson
from attacks.core.oracle import Oracle, softmax
from attacks.core.result import AttackResult
from attacks.errors import DataSplitError
from attacks.membership.core import logit_confidence
from attacks.membership.run import MembershipScores, ask_pool, ask_scores, report
from attacks.membership.setting import MembershipData

_CANDIDATES: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class YeomThreshold:
    """A record is a member if its loss is low (Yeom et al. 2018, adversary 2).

    Scores are minus the cross entropy, shifted so that 0 is the threshold which separates the
    shadows' members from their non-members best. It is set on shadows, never on the target.
    """

    def scores(
        self, oracle: Oracle, data: MembershipData, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """(N,), above 0 for "member"; AbilityError for an oracle of labels."""
        labels = data.pool.labels
        own = _minus_loss(ask_scores(oracle, data), labels)
        shadows = _minus_loss(data.shadows.logits, labels)
        return own - best_threshold(shadows.ravel(), data.shadows.is_member.ravel())

    def run(self, oracle: Oracle, data: MembershipData, rng: np.random.Generator) -> AttackResult:
        return report("Yeom's loss threshold", self.scores, oracle, data, rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModifiedEntropy:
    """Entropy that knows the label, one threshold per class (Song and Mittal 2021, equation 8)."""

    def scores(
        self, oracle: Oracle, data: MembershipData, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """(N,), above 0 for "member"; AbilityError for an oracle of labels."""
        labels = data.pool.labels
        own = -modified_entropy(ask_scores(oracle, data), labels)
        shadows = -modified_entropy(data.shadows.logits, labels)
        for label in np.unique(labels):
            of_class = labels == label
            own[of_class] -= best_threshold(
                shadows[:, of_class].ravel(), data.shadows.is_member[:, of_class].ravel()
            )
        return own

    def run(self, oracle: Oracle, data: MembershipData, rng: np.random.Generator) -> AttackResult:
        return report("modified entropy", self.scores, oracle, data, rng)


def modified_entropy(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """−(1 − p_y) log p_y − Σ_{i≠y} p_i log(1 − p_i), (…, N, classes) → (…, N)."""
    floor = np.finfo(np.float64).tiny
    p = softmax(logits)
    columns = np.broadcast_to(labels[:, None], (*p.shape[:-1], 1))
    own = np.take_along_axis(p, columns, axis=-1)[..., 0]
    terms = p * np.log(np.maximum(1 - p, floor))
    of_own = np.take_along_axis(terms, columns, axis=-1)[..., 0]
    result: NDArray[np.float64] = (
        -(1 - own) * np.log(np.maximum(own, floor)) - terms.sum(axis=-1) + of_own
    )
    return result


def best_threshold(scores: NDArray[np.float64], is_member: NDArray[np.bool_]) -> float:
    """The threshold t with the largest TPR − FPR of ``score > t``, among quantiles; 0 if one side
    is missing."""
    if is_member.all() or not is_member.any():
        return 0.0
    candidates = np.unique(np.quantile(scores, np.linspace(0, 1, _CANDIDATES)))
    members, others = np.sort(scores[is_member]), np.sort(scores[~is_member])
    tpr = 1 - np.searchsorted(members, candidates, side="right") / len(members)
    fpr = 1 - np.searchsorted(others, candidates, side="right") / len(others)
    return float(candidates[np.argmax(tpr - fpr)])


@dataclass(frozen=True, slots=True, kw_only=True)
class GapIdentity:
    """Yeom's adversary 1 accuses a record if it is labelled right: its advantage is the
    difference of training and held-out accuracy, exactly."""

    advantage: float
    generalisation_gap: float
    training_accuracy: Estimate
    held_out_accuracy: Estimate


def gap_identity(oracle: Oracle, data: MembershipData) -> GapIdentity:
    """Both sides of the identity for one target (Yeom et al. 2018, theorem 3 for 0-1 loss)."""
    right = ask_pool(oracle, data).labels == data.pool.labels
    truth = data.is_member
    accused = MembershipScores(scores=right.astype(np.float64), is_member=truth)
    true_positive = float((accused.scores[truth] > 0.5).mean())
    false_positive = float((accused.scores[~truth] > 0.5).mean())
    training = clopper_pearson(int(right[truth].sum()), int(truth.sum()))
    held_out = clopper_pearson(int(right[~truth].sum()), int((~truth).sum()))
    return GapIdentity(
        advantage=true_positive - false_positive,
        generalisation_gap=training.value - held_out.value,
        training_accuracy=training,
        held_out_accuracy=held_out,
    )


def _minus_loss(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Log-probability of the label: −log(1 + e^−φ), which keeps its digits when it is near 0."""
    if logits.shape[-2] != len(labels):
        raise DataSplitError(f"{logits.shape[-2]} answers for {len(labels)} labels")
    result: NDArray[np.float64] = -np.logaddexp(0.0, -logit_confidence(logits, labels))
    return result
