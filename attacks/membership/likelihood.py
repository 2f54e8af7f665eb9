"""LiRA (Carlini et al. 2022) and RMIA (Zarifzadeh et al. 2024).

Both ask whether the target is more confident about a record than models that never saw it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from attacks.core.arrays import Floats, Ints
from attacks.core.oracle import Oracle
from attacks.core.result import AttackResult
from attacks.errors import DataSplitError, ShadowError
from attacks.membership.outcome import ask_scores, report
from attacks.membership.setting import MembershipData
from attacks.membership.statistics import (
    gaussian_offline,
    gaussian_online,
    label_correlation,
    logit_confidence,
    relative_ratio,
    share_dominated,
    true_probability,
)

Confidence = Callable[[Floats, Ints], Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiRAOnline:
    """LiRA: the likelihood ratio of in- and out-models (Carlini et al. 2022, algorithm 1).

    ``confidence``: from logits and labels to what is compared, which should be near normal. Take
    ``label_correlation`` where a server scales and shifts its answers.
    """

    fixed_variance: bool = False
    confidence: Confidence = logit_confidence

    def scores(self, oracle: Oracle, data: MembershipData, rng: np.random.Generator) -> Floats:
        """(N,); AbilityError for an oracle of labels, ShadowError for too few shadows."""
        target, shadows = _confidences(oracle, data, self.confidence)
        return gaussian_online(
            target, shadows, data.shadows.is_member, fixed_variance=self.fixed_variance
        )

    def run(self, oracle: Oracle, data: MembershipData, rng: np.random.Generator) -> AttackResult:
        name = "LiRA, online" + (", fixed variance" if self.fixed_variance else "")
        if self.confidence is label_correlation:
            name += ", on correlations"
        return report(name, self.scores, oracle, data, rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiRAOffline:
    """LiRA with only models that never saw the record (Carlini et al. 2022, section VI-C)."""

    fixed_variance: bool = True

    def scores(self, oracle: Oracle, data: MembershipData, rng: np.random.Generator) -> Floats:
        """(N,); errors as for LiRAOnline."""
        target, shadows = _confidences(oracle, data, logit_confidence)
        return gaussian_offline(
            target, shadows, data.shadows.is_member, fixed_variance=self.fixed_variance
        )

    def run(self, oracle: Oracle, data: MembershipData, rng: np.random.Generator) -> AttackResult:
        name = "LiRA, offline" + (", fixed variance" if self.fixed_variance else "")
        return report(name, self.scores, oracle, data, rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class RMIA:
    """RMIA: pairwise comparison with population records (Zarifzadeh et al. 2024).

    ``gamma``: how many times larger the record's ratio has to be. ``offline_a``: the coefficient
    of the interpolation that replaces in-models; None uses in-models. ``references``: how many
    out-models each record is compared with; 0 uses all. Fewer are allowed with ``offline_a`` only.
    """

    gamma: float = 1.0
    offline_a: float | None = None
    references: int = 0

    def __post_init__(self) -> None:
        if self.gamma < 1 or not 0 <= (self.offline_a or 0.0) <= 1 or self.references < 0:
            raise ShadowError("gamma is at least 1, offline_a in [0, 1], references 0 or more")
        if self.references and self.offline_a is None:
            raise ShadowError("references counts out-models: give offline_a as well")

    def scores(self, oracle: Oracle, data: MembershipData, rng: np.random.Generator) -> Floats:
        """(N,); DataSplitError without a population, else errors as for LiRAOnline."""
        if len(data.population) == 0:
            raise DataSplitError("RMIA compares with population records, and there are none")
        target = true_probability(ask_scores(oracle, data), data.pool.labels)
        shadows = true_probability(data.shadows.logits, data.pool.labels)
        ratios = relative_ratio(
            target,
            shadows,
            data.shadows.is_member,
            offline_a=self.offline_a,
            references=self.references,
        )
        others = oracle.query(data.population.inputs).require_scores()
        labels = data.population.labels
        # No model was trained on the population, so its in-side is always interpolated.
        population = relative_ratio(
            true_probability(others, labels),
            true_probability(data.population_logits, labels),
            np.zeros((len(data.shadows), len(labels)), dtype=np.bool_),
            offline_a=1.0 if self.offline_a is None else self.offline_a,
            references=self.references,
        )
        return share_dominated(ratios, population, gamma=self.gamma)

    def run(self, oracle: Oracle, data: MembershipData, rng: np.random.Generator) -> AttackResult:
        name = "RMIA" + ("" if self.offline_a is None else ", offline")
        return report(name, self.scores, oracle, data, rng)


def _confidences(
    oracle: Oracle, data: MembershipData, confidence: Confidence
) -> tuple[Floats, Floats]:
    """φ of the target, (N,), and of the shadows, (M, N)."""
    scores = ask_scores(oracle, data)
    labels = data.pool.labels
    return confidence(scores, labels), confidence(data.shadows.logits, labels)
