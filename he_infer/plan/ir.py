"""The intermediate representation: frozen nodes over flattened records, and a graph of them.

Every tensor of one record is a flat vector of features; ``shape`` remembers how the framework
saw it, which only packing uses. Three kinds of node compute:

    Affine      y = Σ_k  M_k · x_k + b      any linear layer, any residual addition
    Activation  y = f(x)                    not yet polynomial
    Polynomial  y_i = Σ_j c_ij · T_j(u_i)   u = (x − center) / radius, Chebyshev basis
    Square      y = x²                      what a quadratic becomes

The compiler's passes bring a graph to *normal form*: the sources of an Affine are inputs or
nonlinear nodes, the source of a nonlinear node is an Affine, and the output is an Affine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from he_infer.errors import CompileError

FloatArray: TypeAlias = NDArray[np.float64]
Matrix: TypeAlias = sparse.csr_array


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """The query: one record of ``shape``."""

    name: str
    shape: tuple[int, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """``Σ_k matrices[k] @ x_k + bias``; ``matrices[k]`` is (features, features of source k)."""

    name: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    matrices: tuple[Matrix, ...]
    bias: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Elementwise:
    """What nonlinear nodes share: they read one node of as many features."""

    name: str
    source: str
    shape: tuple[int, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation(Elementwise):
    """An elementwise function that is not a polynomial yet; ``function`` is vectorised."""

    label: str
    function: Callable[[FloatArray], FloatArray] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Polynomial(Elementwise):
    """An elementwise polynomial in the Chebyshev basis over [center − radius, center + radius].

    ``coefficients``: (features, degree + 1); ``center``, ``radius``: (features,), radius > 0.
    """

    coefficients: FloatArray
    center: FloatArray
    radius: FloatArray

    @property
    def degree(self) -> int:
        return int(self.coefficients.shape[1]) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Square(Elementwise):
    """Elementwise square: the one-level form of a quadratic."""


Node: TypeAlias = Input | Affine | Activation | Polynomial | Square


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Nodes in topological order; exactly one Input, first; the last node is the output."""

    nodes: tuple[Node, ...]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    @property
    def input(self) -> Input:
        first = self.nodes[0]
        assert isinstance(first, Input)
        return first

    @property
    def output(self) -> Node:
        return self.nodes[-1]

    def consumers(self, name: str) -> list[Node]:
        return [node for node in self.nodes if name in node.sources]


def features(node: Node) -> int:
    """Number of features of one record at a node."""
    return math.prod(node.shape)


def verify(graph: Graph) -> None:
    """Check names, order, shapes and finiteness; raises CompileError naming the first defect."""
    if not graph.nodes or not isinstance(graph.nodes[0], Input):
        raise CompileError("a graph starts with its input")
    seen: dict[str, Node] = {}
    for node in graph:
        if node.name in seen:
            raise CompileError(f"two nodes are called {node.name}")
        for source in node.sources:
            if source not in seen:
                raise CompileError(f"{node.name} reads {source}, which does not come before it")
        _verify_node(node, seen)
        seen[node.name] = node
    if sum(isinstance(node, Input) for node in graph) != 1:
        raise CompileError("a graph has exactly one input")


def _verify_node(node: Node, seen: Mapping[str, Node]) -> None:
    size = features(node)
    match node:
        case Affine():
            if len(node.sources) != len(node.matrices) or len(set(node.sources)) != len(
                node.sources
            ):
                raise CompileError(f"{node.name}: one matrix for each distinct source")
            for source, matrix in zip(node.sources, node.matrices, strict=True):
                expected = (size, features(seen[source]))
                if matrix.shape != expected:
                    raise CompileError(f"{node.name}: matrix {matrix.shape}, expected {expected}")
                if not np.isfinite(matrix.data).all():
                    raise CompileError(f"{node.name}: weights are not finite")
            if node.bias.shape != (size,) or not np.isfinite(node.bias).all():
                raise CompileError(f"{node.name}: bias must be {size} finite values")
        case Polynomial():
            shapes = (node.coefficients.shape[0], *node.center.shape, *node.radius.shape)
            if shapes != (size, size, size) or not np.isfinite(node.coefficients).all():
                raise CompileError(f"{node.name}: needs finite coefficients for {size} features")
            if not (node.radius > 0).all():
                raise CompileError(f"{node.name}: radius must be positive")
        case Activation() | Square():
            if features(seen[node.source]) != size:
                raise CompileError(f"{node.name}: elementwise, but the feature count changes")
        case Input():
            if size == 0:
                raise CompileError("the input has no features")


def evaluate(graph: Graph, records: FloatArray) -> dict[str, FloatArray]:
    """Evaluate in float64: ``records`` (batch, features) → every node's values, by name."""
    values: dict[str, FloatArray] = {}
    for node in graph:
        match node:
            case Input():
                values[node.name] = np.asarray(records, dtype=np.float64)
            case Affine():
                total = np.tile(node.bias, (len(records), 1))
                for source, matrix in zip(node.sources, node.matrices, strict=True):
                    total += (matrix @ values[source].T).T
                values[node.name] = total
            case Activation():
                values[node.name] = np.asarray(node.function(values[node.source]))
            case Polynomial():
                u = (values[node.source] - node.center) / node.radius
                values[node.name] = clenshaw(node.coefficients, u)
            case Square():
                values[node.name] = values[node.source] ** 2
    return values


def clenshaw(coefficients: FloatArray, u: FloatArray) -> FloatArray:
    """Σ_j coefficients[:, j] · T_j(u) by Clenshaw's recurrence: (batch, features)."""
    b1, b2 = np.zeros_like(u), np.zeros_like(u)
    for j in range(coefficients.shape[1] - 1, 0, -1):
        b1, b2 = coefficients[:, j] + 2 * u * b1 - b2, b1
    return np.asarray(coefficients[:, 0] + u * b1 - b2)
