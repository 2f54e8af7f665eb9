"""How far stolen weights are from the true ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from attacks.extraction.exact.weights import HiddenLayer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightMatch:
    """How far stolen weights are from the true ones after their symmetries are undone.

    ``order`` (h,): the stolen channel that each true channel is matched with. ``row_errors``,
    ``bias_errors``, ``output_errors`` (h,): by true channel, the distance of the unit rows, of the
    biases of unit rows, and of the output columns relative to the true column's length.
    ``missing``: true channels that were not found.
    """

    order: NDArray[np.int64]
    row_errors: NDArray[np.float64]
    bias_errors: NDArray[np.float64]
    output_errors: NDArray[np.float64]
    missing: int

    @property
    def worst_row(self) -> float:
        return float(self.row_errors.max(initial=0.0))


def match_weights(found: HiddenLayer, truth: HiddenLayer) -> WeightMatch:
    """Match stolen channels with true ones by the angle between their rows, then compare."""
    rows, biases, outputs = _unit_channels(truth)
    got_rows, got_biases, got_outputs = _unit_channels(found)
    cosines = rows @ got_rows.T
    true_index, order = linear_sum_assignment(-np.abs(cosines))
    signs = np.sign(cosines[true_index, order])
    chosen = got_rows[order] * signs[:, None]
    scale = np.linalg.norm(outputs[:, true_index], axis=0)
    return WeightMatch(
        order=np.asarray(order, dtype=np.int64),
        row_errors=np.linalg.norm(chosen - rows[true_index], axis=1),
        bias_errors=np.abs(got_biases[order] * signs - biases[true_index]),
        output_errors=np.linalg.norm(got_outputs[:, order] - outputs[:, true_index], axis=0)
        / np.maximum(scale, np.finfo(np.float64).tiny),
        missing=len(rows) - len(order),
    )


def _unit_channels(
    layer: HiddenLayer,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    lengths = np.linalg.norm(layer.weights, axis=1)
    return layer.weights / lengths[:, None], layer.biases / lengths, layer.outputs * lengths**2
