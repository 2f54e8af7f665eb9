"""A torch model in the clear: what every encrypted answer is compared with."""

from __future__ import annotations

import copy
import hashlib
from typing import Final

import numpy as np
import torch
from torch import nn

from attacks.core.arrays import Floats
from attacks.core.oracle import LABELS, LOGITS, Answer, MeteredOracle, OracleInfo, as_logits
from attacks.errors import DataSplitError

# Bounds the memory of one forward pass; answers do not depend on it beyond rounding.
_FORWARD_RECORDS: Final = 2048


class TorchOracle(MeteredOracle):
    """Answers logits (B, classes) of a copy of ``model`` in evaluation mode, in ``dtype``.

    ``input_shape``: of one record. ``low``, ``high``: where inputs are meant to lie; the model
    answers anywhere. A model with one output z answers the logits (0, z). Later changes of
    ``model`` do not reach the copy. Raises DataSplitError if the model does not take records of
    this shape or does not give (B, outputs).
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
        self._model = copy.deepcopy(model).to(device="cpu", dtype=dtype).eval()
        self._dtype = dtype
        try:
            probe = self._forward(np.full((1, *input_shape), float(low)))
        except (RuntimeError, ValueError, IndexError) as error:
            raise DataSplitError(
                f"{name}: the model does not take records of shape {input_shape}: {error}"
            ) from error
        if probe.ndim != 2 or len(probe) != 1:
            raise DataSplitError(
                f"{name}: expected outputs of shape (records, classes), got {probe.shape}"
            )
        super().__init__(
            OracleInfo(
                name=name,
                kind=kind,
                input_shape=tuple(input_shape),
                classes=as_logits(probe).shape[1],
                low=low,
                high=high,
                answers=frozenset({LOGITS, LABELS}),
                version=_digest(self._model),
            )
        )

    def _answer(self, records: Floats) -> Answer:
        parts = [
            self._forward(records[first : first + _FORWARD_RECORDS])
            for first in range(0, len(records), _FORWARD_RECORDS)
        ]
        return Answer.of_logits(as_logits(np.concatenate(parts)))

    def _forward(self, records: Floats) -> Floats:
        with torch.inference_mode():
            outputs = self._model(torch.tensor(records, dtype=self._dtype))
        return np.asarray(outputs.to(torch.float64).numpy())


def _digest(model: nn.Module) -> str:
    """SHA-256 of the architecture as printed and of every parameter and buffer."""
    digest = hashlib.sha256(repr(model).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
