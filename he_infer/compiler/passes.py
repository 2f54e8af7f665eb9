"""Graph → Graph rewrites: pure functions that together bring a graph to normal form.

    fit_activations     Activation → Polynomial on its calibrated interval
    normalise           every Polynomial reads an Affine that maps its interval to [−1, 1]
    complete_squares    quadratic Polynomial → Affine · Square · Affine        (one level)
    merge_affine        Affine ∘ Affine → Affine, residual additions included
    end_with_affine     the output is an Affine, so that its layout holds nothing else

What batch normalisation folding is elsewhere is merge_affine here: it is one more matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from he_infer.compiler.intervals import Interval
from he_infer.errors import CompileError
from he_infer.plan import ir

# Completing a square shifts by b/2a; beyond this many interval radii the shifted value is so
# large that squaring it loses the precision that the saved level was meant to buy.
MAX_SHIFT: Final = 64.0
# Below this share of the output a quadratic term is numerically absent.
LINEAR_TOLERANCE: Final = 1e-9

Fit = Callable[[ir.Activation, Interval], tuple[ir.FloatArray, float, float]]


def fit_activations(graph: ir.Graph, intervals: Mapping[str, Interval], fit: Fit) -> ir.Graph:
    """Replace each Activation that has an interval by the polynomial that ``fit`` returns.

    ``fit`` returns Chebyshev coefficients (degree + 1,), the interval's center and radius.
    """
    nodes: list[ir.Node] = []
    for node in graph:
        if isinstance(node, ir.Activation) and node.name in intervals:
            size = ir.features(node)
            coefficients, center, radius = fit(node, intervals[node.name])
            node = ir.Polynomial(
                name=node.name,
                source=node.source,
                shape=node.shape,
                coefficients=np.tile(coefficients, (size, 1)),
                center=np.full(size, center),
                radius=np.full(size, radius),
            )
        nodes.append(node)
    return _checked(nodes)


def normalise(graph: ir.Graph, intervals: Mapping[str, Interval]) -> ir.Graph:
    """Rewrite each polynomial on u ∈ [−1, 1] of its calibrated interval, below its own Affine.

    Values of order one keep the encrypted evaluation at its full relative precision.
    """
    nodes: list[ir.Node] = []
    for node in graph:
        if not isinstance(node, ir.Polynomial):
            nodes.append(node)
            continue
        interval = intervals[node.name]
        coefficients = rebase(node, interval.center, interval.radius)
        scaled = _diagonal_affine(
            f"{node.name}.in",
            node.source,
            node.shape,
            scale=1 / interval.radius,
            shift=-interval.center / interval.radius,
        )
        ones = np.ones(ir.features(node))
        nodes += [
            scaled,
            replace(
                node, source=scaled.name, coefficients=coefficients, center=0 * ones, radius=ones
            ),
        ]
    return _checked(nodes)


def rebase(node: ir.Polynomial, center: ir.FloatArray, radius: ir.FloatArray) -> ir.FloatArray:
    """The node's Chebyshev coefficients with respect to another center and radius per feature."""
    points = node.degree + 1
    u = np.cos(np.pi * (np.arange(points) + 0.5) / points)
    x = center[:, None] + radius[:, None] * u  # (features, points)
    values = np.stack(
        [
            ir.clenshaw(node.coefficients, ((column - node.center) / node.radius)[None])[0]
            for column in x.T
        ],
        axis=1,
    )
    # Discrete orthogonality of T_j at the Chebyshev nodes makes interpolation a product.
    basis = np.cos(np.arange(points)[:, None] * np.arccos(u))  # (degree + 1, points)
    coefficients = values @ basis.T * (2 / points)
    coefficients[:, 0] /= 2
    return np.asarray(coefficients)


def complete_squares(graph: ir.Graph) -> ir.Graph:
    """Turn quadratics in u into Square between two Affines; linear features bypass the square.

    a·u² + b·u + c = a·(u + b/2a)² + (c − b²/4a). A node of which some feature would need a
    shift beyond MAX_SHIFT keeps its two-level polynomial form. Raises CompileError for a
    quadratic that ``normalise`` has not brought to [−1, 1].
    """
    nodes: list[ir.Node] = []
    for node in graph:
        if not isinstance(node, ir.Polynomial) or node.degree > 2 or not _squarable(node):
            nodes.append(node)
            continue
        if np.any(node.center != 0) or np.any(node.radius != 1):
            raise CompileError(f"{node.name}: normalise comes before complete_squares")
        a, b, c = _power_coefficients(node)
        linear = _linear_features(a, b)
        safe = np.where(linear, 1.0, a)
        shift = np.where(linear, 0.0, b / (2 * safe))
        # Keep |z| ≤ 1 on the interval, whatever the shift.
        gain = np.where(linear, 0.0, 1 / (1 + np.abs(shift)))
        nodes.append(
            _diagonal_affine(
                f"{node.name}.shift", node.source, node.shape, scale=gain, shift=gain * shift
            )
        )
        squared = ir.Square(
            name=f"{node.name}.square", source=f"{node.name}.shift", shape=node.shape
        )
        nodes.append(squared)
        after = np.where(linear, 0.0, safe / np.where(gain == 0, 1.0, gain) ** 2)
        sources, matrices = [squared.name], [_diagonal(after)]
        if linear.any() and np.any(b[linear]):
            sources.append(node.source)
            matrices.append(_diagonal(np.where(linear, b, 0.0)))
        nodes.append(
            ir.Affine(
                name=node.name,
                sources=tuple(sources),
                shape=node.shape,
                matrices=tuple(matrices),
                bias=np.where(linear, c, c - safe * shift**2),
            )
        )
    return _checked(nodes)


def merge_affine(graph: ir.Graph) -> ir.Graph:
    """Compose every Affine with the Affines it reads, then drop what nothing needs."""
    merged: dict[str, ir.Node] = {}
    for node in graph:
        if isinstance(node, ir.Affine):
            node = _absorb(node, merged)
        merged[node.name] = node
    return _without_dead(list(merged.values()), graph.output.name)


def isolate_polynomials(graph: ir.Graph) -> ir.Graph:
    """Put an identity Affine before every nonlinear node that does not already read one."""
    nodes: list[ir.Node] = []
    for node in graph:
        if isinstance(node, ir.Elementwise) and not isinstance(graph[node.source], ir.Affine):
            nodes.append(_identity(f"{node.name}.read", graph[node.source]))
            node = replace(node, source=nodes[-1].name)
        nodes.append(node)
    return _checked(nodes)


def end_with_affine(graph: ir.Graph) -> ir.Graph:
    """Append an identity Affine if the output is anything else."""
    last = graph.output
    if isinstance(last, ir.Affine):
        return graph
    return _checked([*graph.nodes, _identity("output", last)])


def _absorb(node: ir.Affine, merged: Mapping[str, ir.Node]) -> ir.Affine:
    terms: dict[str, ir.Matrix] = {}
    bias = node.bias
    for source, matrix in zip(node.sources, node.matrices, strict=True):
        inner = merged[source]
        if isinstance(inner, ir.Affine):
            bias = bias + matrix @ inner.bias
            parts = [
                (s, sparse.csr_array(matrix @ m))
                for s, m in zip(inner.sources, inner.matrices, strict=True)
            ]
        else:
            parts = [(source, matrix)]
        for name, part in parts:
            terms[name] = sparse.csr_array(terms[name] + part) if name in terms else part
    for part in terms.values():
        part.eliminate_zeros()
    return replace(node, sources=tuple(terms), matrices=tuple(terms.values()), bias=bias)


def _without_dead(nodes: list[ir.Node], output: str) -> ir.Graph:
    needed = {output}
    for node in reversed(nodes):
        if node.name in needed:
            needed.update(node.sources)
    return _checked([n for n in nodes if n.name in needed or isinstance(n, ir.Input)])


def _squarable(node: ir.Polynomial) -> bool:
    a, b, _ = _power_coefficients(node)
    linear = _linear_features(a, b)
    shift = np.abs(b[~linear] / (2 * a[~linear]))
    return bool(np.all(shift <= MAX_SHIFT)) if shift.size else True


def _power_coefficients(
    node: ir.Polynomial,
) -> tuple[ir.FloatArray, ir.FloatArray, ir.FloatArray]:
    """(a, b, c) of a·u² + b·u + c from the Chebyshev form; T_2 = 2u² − 1."""
    padded = np.pad(node.coefficients, ((0, 0), (0, 2 - node.degree)))
    return 2 * padded[:, 2], padded[:, 1], padded[:, 0] - padded[:, 2]


def _linear_features(a: ir.FloatArray, b: ir.FloatArray) -> NDArray[np.bool_]:
    return np.asarray(np.abs(a) <= LINEAR_TOLERANCE * np.maximum(np.abs(b), np.abs(a).max()))


def _diagonal(values: ir.FloatArray) -> ir.Matrix:
    matrix = sparse.csr_array(sparse.diags_array(values))
    matrix.eliminate_zeros()
    return matrix


def _diagonal_affine(
    name: str, source: str, shape: tuple[int, ...], *, scale: ir.FloatArray, shift: ir.FloatArray
) -> ir.Affine:
    return ir.Affine(
        name=name, sources=(source,), shape=shape, matrices=(_diagonal(scale),), bias=shift
    )


def _identity(name: str, source: ir.Node) -> ir.Affine:
    ones = np.ones(ir.features(source))
    return _diagonal_affine(name, source.name, source.shape, scale=ones, shift=0 * ones)


def _checked(nodes: list[ir.Node]) -> ir.Graph:
    graph = ir.Graph(nodes=tuple(nodes))
    ir.verify(graph)
    return graph
