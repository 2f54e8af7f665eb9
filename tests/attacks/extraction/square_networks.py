"""Random networks of squares, written independently of the attacks, and oracles over functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from attacks.core.oracle import (
    LABELS,
    LOGITS,
    PROBABILITIES,
    Answer,
    MeteredOracle,
    OracleInfo,
    softmax,
)
from attacks.core.records import Records
from attacks.extraction.exact.weights import HiddenLayer
from attacks.extraction.setting import ExtractionData

Function = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class FunctionOracle(MeteredOracle):
    """Answers ``function`` (B, d) → (B, classes) plus Gaussian noise, as logits or less."""

    def __init__(
        self,
        function: Function,
        *,
        features: int,
        classes: int,
        low: float = -1.0,
        high: float = 1.0,
        noise: float = 0.0,
        answers: frozenset[str] = frozenset({LOGITS, LABELS}),
    ) -> None:
        super().__init__(
            OracleInfo(
                name="function",
                kind="plaintext",
                input_shape=(features,),
                classes=classes,
                low=low,
                high=high,
                answers=answers,
            )
        )
        self._function = function
        self._noise = noise
        self._rng = np.random.default_rng(12345)

    def _answer(self, records: NDArray[np.float64]) -> Answer:
        info = self.info
        if records.min() < info.low or records.max() > info.high:
            raise AssertionError("a query left the interval that inputs must lie in")
        logits = self._function(records)
        logits = logits + self._noise * self._rng.standard_normal(logits.shape)
        if LOGITS in info.answers:
            return Answer.of_logits(logits)
        if PROBABILITIES in info.answers:
            return Answer.of_probabilities(softmax(logits))
        return Answer(labels=logits.argmax(axis=1).astype(np.int64))


def random_layer(features: int, hidden: int, classes: int, rng: np.random.Generator) -> HiddenLayer:
    """A layer of squares with weights of a usual size."""
    return HiddenLayer(
        weights=rng.normal(size=(hidden, features)) / features**0.5,
        biases=0.3 * rng.normal(size=hidden),
        outputs=rng.normal(size=(classes, hidden)) / hidden**0.5,
        remainder=np.zeros((classes, features)),
        constants=0.1 * rng.normal(size=classes),
    )


def data_for(
    function: Function, *, features: int, classes: int, low: float = -1.0, high: float = 1.0
) -> ExtractionData:
    """Uniform test records with the function's own labels; no seeds, no pool, no noise."""
    rng = np.random.default_rng(99)
    inputs = rng.uniform(low, high, (2000, features))
    labels = function(inputs).argmax(axis=1).astype(np.int64)
    test = Records(inputs=inputs, labels=labels)
    return ExtractionData(
        seeds=test.select(slice(0, 0)),
        pool=inputs[:0],
        test=test,
        reference=FunctionOracle(function, features=features, classes=classes, low=low, high=high),
    )
