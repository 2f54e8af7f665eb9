"""The baseline for every stolen model: what an adversary learns without asking anything."""

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
    """A model that is fitted to the adversary's own labelled seeds, without a query.

    ``learner``: should fit models of the size of the stolen one; None takes a linear model.
    Without seeds the result always guesses the first class.
    """
    chosen = PerceptronLearner() if learner is None else learner
    return chosen.fit(data.seeds, data.reference.info.classes, rng)
