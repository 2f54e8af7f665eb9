"""Oracles for the Adversarial Robustness Toolbox, and its classifiers as oracles.

ART's own black-box classifier copies answers into float32 in batches of 128. The one made here
answers float64 in requests as large as the oracle takes; what ART's attacks do with it
afterwards is theirs, and some of them cast inputs to float32 before they ask.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from attacks.core.arrays import Floats
from attacks.core.oracle import (
    LABELS,
    LOGITS,
    PROBABILITIES,
    Answer,
    MeteredOracle,
    Oracle,
    OracleInfo,
)
from attacks.errors import AbilityError, DataSplitError

_NEEDS = "ART is not installed: pip install 'he-infer[peers]'"


def as_art_classifier(oracle: Oracle) -> Any:
    """An ``art.estimators.classification.BlackBoxClassifier`` that asks ``oracle``.

    ``predict`` gives probabilities, (B, classes) float64: softmax of logits, as answered, or
    one-hot labels, by what the oracle answers. Every record it is asked is on the ledger.
    Raises AbilityError if ART is not installed.
    """
    base = _black_box_classifier()
    info = oracle.info

    class OracleClassifier(base):  # type: ignore[misc, valid-type]
        """ART's interface over an oracle, in float64."""

        def predict(self, x: ArrayLike, batch_size: int = 128, **_: Any) -> Floats:
            """(B, *input_shape) → (B, classes); ``batch_size`` is ART's and changes nothing."""
            prepared, _labels = self._apply_preprocessing(np.asarray(x), y=None, fit=False)
            answer = probabilities_of(oracle, oracle.query(prepared))
            result: Floats = self._apply_postprocessing(preds=answer, fit=False)
            return result

    return OracleClassifier(
        lambda x: probabilities_of(oracle, oracle.query(x)),
        input_shape=info.input_shape,
        nb_classes=info.classes,
        clip_values=(info.low, info.high),
        preprocessing=None,  # the default, "subtract 0 and divide by 1", casts to float32
    )


def probabilities_of(oracle: Oracle, answer: Answer) -> Floats:
    """Probabilities if the oracle tells enough for them, else its labels as one-hot rows."""
    if oracle.info.gives_scores:
        return answer.require_probabilities()
    return np.eye(oracle.info.classes)[answer.labels]


class ArtOracle(MeteredOracle):
    """Asks a fitted ART classifier; what it answers is probabilities or logits, say which.

    ``answers``: "probabilities" or "logits". float64 holds only as far as the classifier computes
    in it; ART's own wrappers compute in float32.
    Raises DataSplitError for a classifier without shape, classes or clip values.
    """

    def __init__(self, classifier: Any, *, name: str, answers: str = PROBABILITIES) -> None:
        clip = getattr(classifier, "clip_values", None)
        shape = getattr(classifier, "input_shape", None)
        classes = getattr(classifier, "nb_classes", None)
        if clip is None or shape is None or not classes:
            raise DataSplitError(
                f"{name}: expected a fitted ART classifier with input_shape, nb_classes and "
                "clip_values"
            )
        if answers not in (PROBABILITIES, LOGITS):
            raise DataSplitError(f"{name}: answers are probabilities or logits, not {answers!r}")
        self._classifier = classifier
        self._gives = answers
        super().__init__(
            OracleInfo(
                name=name,
                kind="plaintext",
                input_shape=tuple(int(side) for side in shape),
                classes=int(classes),
                low=float(np.min(clip[0])),
                high=float(np.max(clip[1])),
                answers=frozenset({answers, LABELS}),
            )
        )

    def _answer(self, records: Floats) -> Answer:
        found = np.asarray(self._classifier.predict(records), dtype=np.float64)
        return Answer.of_logits(found) if self._gives == LOGITS else Answer.of_probabilities(found)


def _black_box_classifier() -> Any:
    """ART's class, imported on first use: it takes seconds, and warns of things it does itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from art.estimators.classification import BlackBoxClassifier
        except ImportError as error:
            raise AbilityError(_NEEDS) from error
    return BlackBoxClassifier
