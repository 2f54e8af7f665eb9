"""scikit-learn estimators as oracles, and oracles as scikit-learn estimators."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any, Final

import joblib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from attacks.core.arrays import Floats
from attacks.core.oracle import (
    LABELS,
    LOGITS,
    PROBABILITIES,
    Answer,
    MeteredOracle,
    Oracle,
    OracleInfo,
    as_logits,
)
from attacks.errors import AbilityError, DataSplitError

_METHODS: Final = {LOGITS: "decision_function", PROBABILITIES: "predict_proba"}


class EstimatorOracle(MeteredOracle):
    """Answers what a fitted classifier answers: decision values, probabilities, labels.

    Records are (B, n_features_in_); labels count from 0 in the order of ``classes_``.
    ``answers``: some of "logits" (``decision_function``), "probabilities" (``predict_proba``)
    and "labels"; None takes all that the estimator has. One decision value z becomes the
    logits (0, z). Probabilities are scikit-learn's own: a one-vs-rest model normalises its
    sigmoids, so they are not the softmax of its decision values. Trees compare in float32,
    whatever they are given. Raises AbilityError for an ability the estimator lacks,
    DataSplitError if it is not a fitted classifier.
    """

    def __init__(
        self,
        estimator: Any,
        *,
        name: str,
        low: float,
        high: float,
        answers: frozenset[str] | None = None,
        kind: str = "plaintext",
    ) -> None:
        if not hasattr(estimator, "classes_") or not hasattr(estimator, "n_features_in_"):
            raise DataSplitError(
                f"{name}: expected a fitted classifier, got a {type(estimator).__name__} without "
                "classes_ or n_features_in_"
            )
        self._estimator = copy.deepcopy(estimator)
        self._classes: NDArray[Any] = np.asarray(estimator.classes_)
        features = int(estimator.n_features_in_)
        offered = self._offered(features)
        if answers is not None and not answers | {LABELS} <= offered:
            lacking = ", ".join(sorted(answers - offered))
            raise AbilityError(f"{name}: a {type(estimator).__name__} does not answer {lacking}")
        chosen = offered if answers is None else answers | {LABELS}
        super().__init__(
            OracleInfo(
                name=name,
                kind=kind,
                input_shape=(features,),
                classes=len(self._classes),
                low=low,
                high=high,
                answers=frozenset(chosen),
                version=str(joblib.hash(self._estimator)),
            )
        )

    def _offered(self, features: int) -> frozenset[str]:
        """Abilities whose answers have one column per class; one-vs-one decisions have not."""
        probe = np.zeros((1, features))
        offered = {LABELS}
        for ability in _METHODS:
            if ability == LOGITS and len(self._classes) > 2 and self._votes():
                continue
            if hasattr(self._estimator, _METHODS[ability]):
                scores = as_logits(self._ask(_METHODS[ability], probe))
                if scores.shape == (1, len(self._classes)):
                    offered.add(ability)
        return frozenset(offered)

    def _votes(self) -> bool:
        """Of three classes there are three pairs: the shape does not tell them apart."""
        return getattr(self._estimator, "decision_function_shape", "ovr") == "ovo"

    def _ask(self, method: str, records: Floats) -> NDArray[Any]:
        ask: Callable[[Floats], ArrayLike] = getattr(self._estimator, method)
        with warnings.catch_warnings():
            # About feature names, which arrays do not have.
            warnings.filterwarnings("ignore", message=".*valid feature names")
            return np.asarray(ask(records))

    def _answer(self, records: Floats) -> Answer:
        predicted = self._ask("predict", records)
        wanted = self._info.answers
        scores = {
            ability: as_logits(self._ask(method, records)) if ability in wanted else None
            for ability, method in _METHODS.items()
        }
        return Answer(
            labels=np.searchsorted(self._classes, predicted).astype(np.int64),
            logits=scores[LOGITS],
            probabilities=scores[PROBABILITIES],
        )


class OracleEstimator(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An oracle behind scikit-learn's interface; every prediction is a query on its ledger.

    ``X``: (B, features), features in the order of the flattened record; ``classes_``: 0 …
    classes − 1. A clone asks the same oracle. ``fit`` checks the number of features and changes
    nothing: the target is trained. Raises AbilityError where the oracle answers only labels.
    """

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle

    @property
    def classes_(self) -> NDArray[np.int64]:
        return np.arange(self.oracle.info.classes)

    @property
    def n_features_in_(self) -> int:
        return self.oracle.info.features

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> OracleEstimator:
        self._shaped(X)
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Labels, (B,)."""
        return self.oracle.query(self._shaped(X)).labels

    def predict_proba(self, X: ArrayLike) -> Floats:
        """Probabilities, (B, classes)."""
        return self.oracle.query(self._shaped(X)).require_probabilities()

    def predict_log_proba(self, X: ArrayLike) -> Floats:
        """Their logarithms, (B, classes)."""
        probabilities = self.predict_proba(X)
        return np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))

    def decision_function(self, X: ArrayLike) -> Floats:
        """Logits, (B, classes); for two classes their difference, (B,), as scikit-learn has it."""
        logits = self.oracle.query(self._shaped(X)).require_logits()
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def _shaped(self, X: ArrayLike) -> Floats:
        check_is_fitted(self)
        array = np.asarray(X, dtype=np.float64)
        info = self.oracle.info
        if array.ndim != 2 or array.shape[1] != info.features:
            raise DataSplitError(
                f"{info.name}: expected records of shape (count, {info.features}), got "
                f"{array.shape}"
            )
        return array.reshape(len(array), *info.input_shape)
