"""Recognises polynomials that were written out: 0.125 * x**2 + 0.5 * x is one activation.

Each node may be an elementwise polynomial of some earlier node, its *root*. A *form* is that
polynomial's ascending power coefficients per feature, (features, degree + 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from numpy.polynomial import chebyshev
from scipy import sparse

from he_infer.plan import ir

MAX_DEGREE: Final = 8
Forms: TypeAlias = dict[str, ir.FloatArray]  # root → coefficients


@dataclass
class Recogniser:
    """Grows with the graph: ``add`` nodes in topological order, then ask."""

    known: dict[str, Forms] = field(default_factory=dict)

    def add(self, node: ir.Node) -> None:
        found: Forms = {}
        match node:
            case ir.Affine():
                found = self._affine(node)
            case ir.Polynomial():
                found = self._polynomial(node)
            case ir.Input() | ir.Activation() | ir.Square():
                pass
        size = ir.features(node)
        found[node.name] = np.tile([0.0, 1.0], (size, 1))
        self.known[node.name] = found

    def product(self, first: str, second: str) -> tuple[str, ir.FloatArray] | None:
        """The nearest common root of two nodes and their product's form, if there is one."""
        for root, a in reversed(list(self.known[first].items())):
            b = self.known[second].get(root)
            if b is not None and a.shape[1] + b.shape[1] - 2 <= MAX_DEGREE:
                return root, multiply(a, b)
        return None

    def sum_of_powers(self, node: ir.Affine) -> tuple[str, ir.FloatArray] | None:
        """The root and form of an Affine that adds powers of one root; None for other Affines."""
        if len(node.sources) < 2:
            return None
        candidates = [
            (root, form)
            for root, form in self.known[node.name].items()
            if root != node.name and form.shape[1] > 2
        ]
        return candidates[-1] if candidates else None

    def _affine(self, node: ir.Affine) -> Forms:
        if not all(_is_diagonal(matrix) for matrix in node.matrices):
            return {}
        shared = [self.known[source] for source in node.sources]
        forms: Forms = {}
        for root in shared[0]:
            if not all(root in others for others in shared):
                continue
            width = max(others[root].shape[1] for others in shared)
            total = np.zeros((ir.features(node), width))
            for matrix, others in zip(node.matrices, shared, strict=True):
                form = others[root]
                total[:, : form.shape[1]] += matrix.diagonal()[:, None] * form
            total[:, 0] += node.bias
            forms[root] = total
        return forms

    def _polynomial(self, node: ir.Polynomial) -> Forms:
        forms: Forms = {}
        powers = np.stack([_powers(row) for row in node.coefficients])
        for root, form in self.known[node.source].items():
            if node.degree * (form.shape[1] - 1) > MAX_DEGREE:
                continue
            u = form.copy()
            u[:, 0] -= node.center
            u /= node.radius[:, None]
            total = powers[:, -1:]
            for j in range(node.degree - 1, -1, -1):  # Horner, with polynomials as values
                total = multiply(total, u)
                total[:, 0] += powers[:, j]
            forms[root] = total
        return forms


def gather_polynomials(graph: ir.Graph) -> ir.Graph:
    """Replace every sum of powers of one node by one Polynomial of that node."""
    recogniser = Recogniser()
    nodes: list[ir.Node] = []
    for node in graph:
        recogniser.add(node)
        if isinstance(node, ir.Affine):
            found = recogniser.sum_of_powers(node)
            if found is not None:
                node = polynomial_of(node.name, found[0], node.shape, found[1])
        nodes.append(node)
    result = ir.Graph(nodes=tuple(nodes))
    ir.verify(result)
    return result


def polynomial_of(
    name: str,
    root: str,
    shape: tuple[int, ...],
    form: ir.FloatArray,
    *,
    center: ir.FloatArray | float = 0.0,
    radius: ir.FloatArray | float = 1.0,
) -> ir.Polynomial:
    """A node that evaluates ``form`` at u = (x - center) / radius of ``root``.

    ``form``: power coefficients, (rows, degree + 1). Each row stands for as many neighbouring
    features: all of them, those of one channel, or a single one. So do ``center`` and ``radius``.
    """
    repeat = math.prod(shape) // len(form)
    coefficients = np.zeros_like(form)
    for i, row in enumerate(form):
        converted = chebyshev.poly2cheb(row)  # without trailing zeros
        coefficients[i, : len(converted)] = converted
    return ir.Polynomial(
        name=name,
        source=root,
        shape=shape,
        coefficients=np.repeat(coefficients, repeat, axis=0),
        center=np.repeat(np.broadcast_to(center, len(form)), repeat).astype(np.float64),
        radius=np.repeat(np.broadcast_to(radius, len(form)), repeat).astype(np.float64),
    )


def multiply(a: ir.FloatArray, b: ir.FloatArray) -> ir.FloatArray:
    """Row-wise product of power coefficients, (features, da + 1) · (features, db + 1)."""
    product = np.zeros((len(a), a.shape[1] + b.shape[1] - 1))
    for j in range(b.shape[1]):
        product[:, j : j + a.shape[1]] += a * b[:, j : j + 1]
    return product


def _powers(row: ir.FloatArray) -> ir.FloatArray:
    converted = chebyshev.cheb2poly(row)
    return np.pad(converted, (0, len(row) - len(converted)))


def _is_diagonal(matrix: ir.Matrix) -> bool:
    rows, columns = sparse.coo_array(matrix).coords
    return bool(matrix.shape[0] == matrix.shape[1] and np.array_equal(rows, columns))


def agrees(
    graph: ir.Graph, records: ir.FloatArray, expected: ir.FloatArray, *, tolerance: float
) -> bool:
    """Whether the graph gives the model's own outputs, (batch, outputs), on ``records``.

    ``tolerance`` is relative to each value, and to the largest one where that is above 1.
    """
    got = ir.evaluate(graph, records.reshape(len(records), -1))[graph.output.name]
    scale = max(1.0, float(np.abs(expected).max()))
    return got.shape == expected.shape and np.allclose(
        got, expected, rtol=tolerance, atol=tolerance * scale
    )
