"""Attack models, one per class, trained on the answers of shadow models (Shokri et al. 2017)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from attacks.core.arrays import Bools, Floats
from attacks.core.oracle import Oracle
from attacks.core.result import AttackResult
from attacks.errors import ShadowError
from attacks.membership.outcome import ask_scores, report
from attacks.membership.setting import MembershipData


@dataclass(frozen=True, slots=True, kw_only=True)
class ShokriAttack:
    """Shokri et al. 2017: learns "in" or "out" from the shadows' log-probabilities.

    Each true class has a network of ``hidden`` units, trained on at most ``most_rows`` rows.
    """

    hidden: int = 32
    most_rows: int = 4000
    epochs: int = 60

    def __post_init__(self) -> None:
        if min(self.hidden, self.most_rows, self.epochs) < 1:
            raise ShadowError("hidden, most_rows and epochs must be positive")

    def scores(self, oracle: Oracle, data: MembershipData, rng: np.random.Generator) -> Floats:
        """(N,): probability of membership. AbilityError for an oracle of labels, ShadowError for
        a class that no shadow saw on both sides."""
        labels = data.pool.labels
        own = _features(ask_scores(oracle, data))
        shadows = _features(data.shadows.logits)
        found = np.empty(len(labels))
        for label in np.unique(labels):
            of_class = np.flatnonzero(labels == label)
            rows = shadows[:, of_class].reshape(-1, shadows.shape[-1])
            truth = data.shadows.is_member[:, of_class].ravel()
            if truth.all() or not truth.any():
                raise ShadowError(
                    f"class {int(label)} has no shadow records on both sides: train more shadows"
                )
            if len(rows) > self.most_rows:
                kept = rng.choice(len(rows), self.most_rows, replace=False)
                rows, truth = rows[kept], truth[kept]
            found[of_class] = self._fit_predict(rows, truth, own[of_class], rng)
        return found

    def run(self, oracle: Oracle, data: MembershipData, rng: np.random.Generator) -> AttackResult:
        return report("Shokri's shadow models", self.scores, oracle, data, rng)

    def _fit_predict(
        self,
        rows: Floats,
        truth: Bools,
        own: Floats,
        rng: np.random.Generator,
    ) -> Floats:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        mean, std = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-9)
        learner = MLPClassifier(
            hidden_layer_sizes=(self.hidden,),
            max_iter=self.epochs,
            learning_rate_init=5e-3,
            batch_size=min(256, len(rows)),
            random_state=int(rng.integers(2**31)),
        )
        with warnings.catch_warnings():
            # Stopping after so many epochs is meant: overfitted attack models attack worse.
            warnings.simplefilter("ignore", ConvergenceWarning)
            learner.fit((rows - mean) / std, truth)
        result: Floats = learner.predict_proba((own - mean) / std)[:, 1]
        return result


def _features(logits: Floats) -> Floats:
    """Log-probabilities. An overfitted model's probabilities are too close to 0 and 1 to learn."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    result: Floats = np.maximum(shifted - log_total, -30.0)
    return result
