"""Models in the clear: any torch module, any scikit-learn classifier."""

from __future__ import annotations

import copy
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from attacks.errors import DataSplitError
from attacks.oracle import LABELS, LOGITS, PROBABILITIES, Answer, MeteredOracle, OracleInfo

_CHUNK: Final = 4096


class TorchOracle(MeteredOracle):
    """A network (B, *input_shape) → (B, classes), copied, in evaluation mode, in ``dtype``.

    float64 by default: an attack that solves equations needs every digit. Raises DataSplitError
    if the network does not map one record of zeros to one row of two or more logits.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        input_shape: tuple[int, ...],
        low: float,
        high: float,
        kind: str = "plaintext",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self._model = copy.deepcopy(model).to(dtype).eval()
        self._dtype = dtype
        with torch.inference_mode():
            probe = self._model(torch.zeros((1, *input_shape), dtype=dtype))
        if probe.ndim != 2 or probe.shape[0] != 1 or probe.shape[1] < 2:
            raise DataSplitError(
                f"{name}: expected one row of logits for one record, got {tuple(probe.shape)}"
            )
        super().__init__(
            OracleInfo(
                name=name,
                kind=kind,
                input_shape=input_shape,
                classes=int(probe.shape[1]),
                low=low,
                high=high,
                answers=frozenset({LOGITS, LABELS}),
            )
        )

    def _answer(self, records: NDArray[np.float64]) -> Answer:
        tensor = torch.as_tensor(records, dtype=self._dtype)
        with torch.inference_mode():
            parts = [self._model(part) for part in torch.split(tensor, _CHUNK)]
        return Answer.of_logits(torch.cat(parts).double().numpy())


class EstimatorOracle(MeteredOracle):
    """A fitted scikit-learn classifier whose classes are 0 … c-1; records are flat.

    ``answers`` is "probabilities" (predict_proba, as scikit-learn normalises it) or "labels".
    Raises DataSplitError for an estimator that is not fitted, has other classes, or has no
    predict_proba where probabilities are asked for.
    """

    def __init__(
        self, estimator: Any, *, name: str, low: float, high: float, answers: str = PROBABILITIES
    ) -> None:
        classes = getattr(estimator, "classes_", None)
        features = getattr(estimator, "n_features_in_", None)
        if classes is None or features is None:
            raise DataSplitError(f"{name}: fit the estimator before it is attacked")
        if not np.array_equal(np.asarray(classes), np.arange(len(classes))):
            raise DataSplitError(f"{name}: classes must be 0 … {len(classes) - 1}, got {classes}")
        if answers not in (PROBABILITIES, LABELS):
            raise DataSplitError(f"{name}: answers are probabilities or labels, not {answers!r}")
        if answers == PROBABILITIES and not hasattr(estimator, "predict_proba"):
            raise DataSplitError(f"{name}: the estimator gives no probabilities: ask for labels")
        self._estimator = estimator
        self._gives = answers
        super().__init__(
            OracleInfo(
                name=name,
                kind="plaintext",
                input_shape=(int(features),),
                classes=len(classes),
                low=low,
                high=high,
                answers=frozenset({answers, LABELS}),
            )
        )

    def _answer(self, records: NDArray[np.float64]) -> Answer:
        labels = np.asarray(self._estimator.predict(records)).astype(np.int64)
        if self._gives == LABELS:
            return Answer(labels=labels)
        probabilities = np.asarray(self._estimator.predict_proba(records), dtype=np.float64)
        return Answer(labels=labels, probabilities=probabilities)
