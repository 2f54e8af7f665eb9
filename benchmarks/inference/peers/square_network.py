"""A compiled network as plain matrices: a convolution or a dense layer first, squares between.

TenSEAL squares ciphertexts, so trained quadratics have to be completed to squares first. The
compiler's own passes do that; this module reads the result back as weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from he_infer.compiler import passes
from he_infer.errors import CompileError
from he_infer.frontend.pytorch import trace
from he_infer.plan import ir

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """``kernels``: (channels, size, size) on one square input channel, without padding.

    ``bias``: (channels,). Windows are ordered row by row.
    """

    kernels: FloatArray
    bias: FloatArray
    stride: int
    side: int

    @property
    def windows(self) -> int:
        size = int(self.kernels.shape[1])
        return ((self.side - size) // self.stride + 1) ** 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """``y = x @ weight + bias``; ``weight``: (inputs, outputs)."""

    weight: FloatArray
    bias: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class SquareNetwork:
    """Layers with a square between each two; the first may be a convolution."""

    convolution: Convolution | None
    dense: tuple[Dense, ...]


def read_square_network(model: nn.Module, sample: NDArray[np.float32]) -> SquareNetwork:
    """Bring ``model`` to layers with squares between; ``sample``: (S, *record), any inputs.

    Raises CompileError if the network has another form (skips, cubes, padded convolutions).
    """
    traced = trace(model, sample.astype(np.float64))
    # Without the compiler's normalisation, which scales every window of a convolution its own way.
    graph = passes.isolate_polynomials(passes.end_with_affine(traced))
    graph = passes.merge_affine(passes.complete_squares(graph))
    layers: list[ir.Affine] = []
    for index, node in enumerate(graph.nodes[1:]):
        if index % 2 == 0 and isinstance(node, ir.Affine) and len(node.sources) == 1:
            layers.append(node)
        elif not (index % 2 == 1 and isinstance(node, ir.Square)):
            raise CompileError(f"{node.name} does not fit a chain of layers and squares")
    first = layers[0]
    convolution = _read_convolution(first, graph.input.shape) if len(first.shape) == 3 else None
    rest = layers[1:] if convolution else layers
    dense = tuple(Dense(weight=_matrix(layer).T, bias=layer.bias) for layer in rest)
    return SquareNetwork(convolution=convolution, dense=dense)


def _matrix(layer: ir.Affine) -> FloatArray:
    return np.asarray(layer.matrices[0].toarray(), dtype=np.float64)


def _read_convolution(layer: ir.Affine, record: tuple[int, ...]) -> Convolution:
    """Kernels from the unrolled matrix; every window is then checked against them."""
    channels, out_side, width = layer.shape
    side = record[-1]
    if record != (1, side, side) or width != out_side:
        raise CompileError(f"only square one-channel images are read, got {record}")
    matrix = _matrix(layer).reshape(channels, out_side, out_side, side, side)
    corner = np.abs(matrix[:, 0, 0]).sum(axis=0)
    size = int(np.flatnonzero(corner.sum(axis=0)).max()) + 1
    stride = (side - size) // max(1, out_side - 1)
    kernels = matrix[:, 0, 0, :size, :size].copy()
    bias = layer.bias.reshape(channels, -1)
    for y in range(out_side):
        for x in range(out_side):
            expected = np.zeros((channels, side, side))
            top, left = y * stride, x * stride
            window = expected[:, top : top + size, left : left + size]
            if window.shape != kernels.shape:
                raise CompileError(f"{layer.name} pads its input, which this form does not hold")
            window[:] = kernels
            if not np.allclose(matrix[:, y, x], expected, atol=1e-12):
                raise CompileError(f"{layer.name} is not an unpadded convolution")
    if not np.allclose(bias, bias[:, :1]):
        raise CompileError(f"{layer.name}: the bias differs between windows")
    return Convolution(kernels=kernels, bias=bias[:, 0], stride=stride, side=side)
