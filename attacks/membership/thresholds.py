"""Attacks with a threshold: loss (Yeom et al. 2018), modified entropy (Song and Mittal 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from attacks.core.arrays import Bools, Floats, Ints
from attacks.core.oracle import Oracle, softmax
from attacks.core.result import AttackResult
from attacks.core.roc import rates_at
from attacks.errors import DataSplitError
from attacks.membership.outcome import ask_pool, ask_scores, report
from attacks.membership.setting import MembershipData
from attacks.membership.statistics import logit_confidence, of_label

_CANDIDATES: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class YeomThreshold:
    """A record is a member if its loss is low (Yeom et al. 2018, adversary 2).

    Scores are minus the cross entropy, shifted so that 0 is the threshold which separates the
    shadows' members from their non-members best. It is set on shadows, never on the target.
    """

    def scores(self, oracle: Oracle, data: MembershipData, rng: np.random.Generator) -> Floats:
        """(N,), above 0 for "member"; AbilityError for an oracle of labels."""
        labels = data.pool.labels
        own = _minus_loss(ask_scores(oracle, data), labels)
        shadows = _minus_loss(data.shadows.logits, labels)
        return own - best_threshold(shadows.ravel(), data.shadows.is_member.ravel())

    def run(self, oracle: Oracle, data: MembershipData, rng: np.random.Generator) -> AttackResult:
        return report("Yeom's loss threshold", self.scores, oracle, data, rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModifiedEntropy:
    """Entropy that takes the label into account (Song and Mittal 2021, equation 8).

    Each class has a threshold of its own, set on shadows.
    """

    def scores(self, oracle: Oracle, data: MembershipData, rng: np.random.Generator) -> Floats:
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


def modified_entropy(logits: Floats, labels: Ints) -> Floats:
    """−(1 − p_y) log p_y − Σ_{i≠y} p_i log(1 − p_i), (…, N, classes) → (…, N)."""
    floor = np.finfo(np.float64).tiny
    p = softmax(logits)
    own = of_label(p, labels)
    terms = p * np.log(np.maximum(1 - p, floor))
    result: Floats = (
        -(1 - own) * np.log(np.maximum(own, floor)) - terms.sum(axis=-1) + of_label(terms, labels)
    )
    return result


def best_threshold(scores: Floats, is_member: Bools) -> float:
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
    """Both sides of an identity of Yeom et al. 2018.

    Their adversary 1 accuses every record that is labelled right. Its advantage is exactly the
    difference of training and held-out accuracy.
    """

    advantage: float
    generalisation_gap: float


def gap_identity(oracle: Oracle, data: MembershipData) -> GapIdentity:
    """Both sides of the identity for one target (Yeom et al. 2018, theorem 3 for 0-1 loss)."""
    right = ask_pool(oracle, data).labels == data.pool.labels
    accuracy, held_out = (float(right[side].mean()) for side in (data.is_member, ~data.is_member))
    # Whoever is labelled right is accused.
    point = rates_at(right.astype(np.float64), data.is_member, threshold=0.5)
    return GapIdentity(
        advantage=point.tpr.value - point.fpr.value, generalisation_gap=accuracy - held_out
    )


def _minus_loss(logits: Floats, labels: Ints) -> Floats:
    """Log-probability of the label: −log(1 + e^−φ), which keeps its digits when it is near 0."""
    if logits.shape[-2] != len(labels):
        raise DataSplitError(f"{logits.shape[-2]} answers for {len(labels)} labels")
    result: Floats = -np.logaddexp(0.0, -logit_confidence(logits, labels))
    return result
