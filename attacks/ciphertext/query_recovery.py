"""What the server can tell about a query from all it sees: sizes, times, ciphertext bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from attacks.ciphertext.channel import FALSE_ALARM
from attacks.core.arrays import Floats
from attacks.core.intervals import Estimate, clopper_pearson

_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """``accuracy`` of guessed classes against ``chance``, the share of the commonest one."""

    accuracy: Estimate
    chance: float
    queries: int

    @property
    def better_than_chance(self) -> bool:
        """Whether guesses at chance would be right as often once in a thousand times."""
        right = round(self.accuracy.value * self.queries)
        test = binomtest(right, self.queries, self.chance, alternative="greater")
        return bool(test.pvalue < FALSE_ALARM)


def features_of(envelopes: Sequence[bytes], times_ms: Sequence[float]) -> Floats:
    """(queries, 258): length, evaluation time, and how often each byte value occurs."""
    rows = []
    for envelope, time_ms in zip(envelopes, times_ms, strict=True):
        counts = np.bincount(np.frombuffer(envelope, dtype=np.uint8), minlength=256)
        rows.append(np.concatenate([[len(envelope), time_ms], counts]))
    return np.array(rows, dtype=np.float64)


def guess_classes(features: Floats, classes: NDArray[np.int64], *, seed: int) -> Guess:
    """Cross-validated logistic regression from ``features`` (queries, d) to ``classes``."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    counts = np.bincount(classes)
    common = counts[classes] > 1  # a class seen once can be learnt or tested, not both
    features, classes = features[common], classes[common]
    parts = max(2, min(_FOLDS, int(counts[counts > 1].min())))
    folds = StratifiedKFold(parts, shuffle=True, random_state=seed)
    guessed = cross_val_predict(model, features, classes, cv=folds)
    right = int((guessed == classes).sum())
    return Guess(
        accuracy=clopper_pearson(right, len(classes)),
        chance=float(np.bincount(classes).max() / len(classes)),
        queries=len(classes),
    )
