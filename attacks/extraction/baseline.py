"""What an attacker has without asking anything: the yardstick beside every stolen model."""

from __future__ import annotations

import numpy as np

from attacks.extraction.learners import Learner, PerceptronLearner
from attacks.extraction.setting import ExtractionData, StolenModel


def no_oracle(
    data: ExtractionData,
    rng: np.random.Generator,
    *,
    learner: Learner | None = None,
) -> StolenModel:
    """A model of the attacker's own labelled seeds, without a single query.

    ``learner``: give the one whose models have the size of the stolen model's; a linear one
    otherwise. Without seeds it always guesses the first class.
    """
    chosen = PerceptronLearner() if learner is None else learner
    return chosen.fit(data.seeds, data.reference.info.classes, rng)
