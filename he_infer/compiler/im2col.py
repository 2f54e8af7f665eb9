"""The client-side unrolling of a first layer: each window's inputs side by side.

The client sees its own data in the clear, so it may send an input pixel several times. For an
Affine whose output is (C, windows), virtual feature (t, w) is the t-th input that window w
reads; every window then lies at the same distance from its inputs, and one rotation serves
all windows. It works for any layer, convolution or not, whose windows read few inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from he_infer.plan import ir
from he_infer.plan.layout import IntArray


@dataclass(frozen=True, kw_only=True)
class Unrolled:
    """``gather[v]`` = input feature of virtual feature v = tap · windows + window, or −1.

    ``matrix`` is the layer's, on virtual features.
    """

    gather: IntArray
    matrix: ir.Matrix
    taps: int
    windows: int


def unroll(matrix: ir.Matrix, shape: tuple[int, ...]) -> Unrolled | None:
    """Unroll a layer with output ``shape`` (channels, height, width); None for other shapes."""
    if len(shape) != 3:
        return None
    channels, windows = shape[0], shape[1] * shape[2]
    coo = sparse.coo_array(matrix)
    row, column = coo.coords
    channel, window = np.divmod(row, windows)
    # The inputs of each window, over all channels, in increasing order.
    pairs = np.unique(np.stack([window, column], axis=1), axis=0)
    starts = np.searchsorted(pairs[:, 0], np.arange(windows + 1))
    taps = int(np.diff(starts).max())
    tap = np.arange(len(pairs)) - starts[pairs[:, 0]]
    gather = np.full(taps * windows, -1, dtype=np.int64)
    gather[tap * windows + pairs[:, 0]] = pairs[:, 1]
    inputs = matrix.shape[1]
    where = np.searchsorted(pairs[:, 0] * inputs + pairs[:, 1], window * inputs + column)
    virtual = tap[where] * windows + window
    unrolled = sparse.csr_array(
        (coo.data, (channel * windows + window, virtual)),
        shape=(channels * windows, taps * windows),
    )
    return Unrolled(gather=gather, matrix=unrolled, taps=taps, windows=windows)
