"""Oracles as Foolbox models, for its attacks that need no gradient."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from attacks.core.oracle import LABELS, Oracle
from attacks.errors import AbilityError
from attacks.oracles.art import probabilities_of

_NEEDS = "Foolbox is not installed: pip install 'he-infer[peers]'"


def as_foolbox_model(oracle: Oracle) -> Any:
    """A ``foolbox.models.base.Model`` that asks ``oracle``; bounds are the oracle's range.

    Called with (B, *input_shape) tensors of any framework Foolbox knows, it gives (B, classes)
    of the same framework and type: logits, log-probabilities or one-hot labels, by what the
    oracle answers.
    NumPy inputs keep float64; Foolbox's attacks compute in the type of the inputs they are given.
    There is no gradient. Every record is on the oracle's ledger.
    Raises AbilityError if Foolbox is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import eagerpy
            from foolbox.models.base import Model
            from foolbox.types import Bounds
        except ImportError as error:
            raise AbilityError(_NEEDS) from error
    info = oracle.info

    class OracleModel(Model):
        """Foolbox's interface over an oracle."""

        @property
        def bounds(self) -> Any:
            return Bounds(info.low, info.high)

        def __call__(self, inputs: Any) -> Any:
            tensor, restore = eagerpy.astensor_(inputs)  # type: ignore[attr-defined]
            answer = oracle.query(np.asarray(tensor.numpy(), dtype=np.float64))
            if info.gives_scores:
                scores = answer.require_scores()
            else:
                assert LABELS in info.answers
                scores = probabilities_of(oracle, answer)
            same_type = scores.astype(tensor.numpy().dtype)
            return restore(eagerpy.from_numpy(tensor, same_type))

    return OracleModel()
