"""Graphs evaluate as their definition says; lookups find what is there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev
from scipy import sparse

from he_infer.plan import ir

FIRST, SECOND = np.array([[1.0, 2.0], [0.0, -1.0]]), np.array([[0.5, 0.0], [3.0, 1.0]])


def diamond() -> ir.Graph:
    """input → a → a²; input and a² → sum → cubic in [−1, 3] → sine."""
    return ir.Graph(
        nodes=(
            ir.Input(name="x", shape=(1, 2)),
            ir.Affine(
                name="a",
                sources=("x",),
                shape=(2,),
                matrices=(sparse.csr_array(FIRST),),
                bias=np.array([1.0, 0.0]),
            ),
            ir.Square(name="s", source="a", shape=(2,)),
            ir.Affine(
                name="sum",
                sources=("s", "x"),
                shape=(2,),
                matrices=(sparse.csr_array(SECOND), sparse.csr_array(np.eye(2))),
                bias=np.array([0.0, -2.0]),
            ),
            ir.Polynomial(
                name="p",
                source="sum",
                shape=(2,),
                coefficients=np.array([[0.0, 0.0, 0.0, 1.0], [1.0, -1.0, 0.0, 0.0]]),
                center=np.array([1.0, 1.0]),
                radius=np.array([2.0, 2.0]),
            ),
            ir.Activation(name="f", source="p", shape=(2,), label="sin", function=np.sin),
        )
    )


def test_every_node_is_evaluated_as_defined() -> None:
    graph = diamond()
    ir.verify(graph)
    x = np.random.default_rng(0).normal(size=(7, 2))
    values = ir.evaluate(graph, x)
    a = x @ FIRST.T + [1, 0]
    total = (a * a) @ SECOND.T + x + [0, -2]
    u = (total - 1) / 2
    cubic = np.stack([4 * u[:, 0] ** 3 - 3 * u[:, 0], 1 - u[:, 1]], axis=1)
    for name, expected in {"x": x, "a": a, "s": a * a, "sum": total, "p": cubic}.items():
        np.testing.assert_allclose(values[name], expected, atol=1e-9)
    np.testing.assert_allclose(values["f"], np.sin(cubic), atol=1e-9)


def test_evaluation_leaves_the_records_alone() -> None:
    x = np.ones((3, 2))
    ir.evaluate(diamond(), x)
    np.testing.assert_array_equal(x, np.ones((3, 2)))


def test_lookups() -> None:
    graph = diamond()
    assert graph.input.name == "x" and graph.output.name == "f"
    assert [node.name for node in graph.consumers("x")] == ["a", "sum"]
    assert graph["sum"].sources == ("s", "x")
    assert ir.features(graph.input) == 2
    polynomial = graph["p"]
    assert isinstance(polynomial, ir.Polynomial) and polynomial.degree == 3
    with pytest.raises(KeyError):
        graph["nothing"]


def test_nodes_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        diamond().input.name = "y"  # type: ignore[misc]


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), degree=st.integers(0, 20))
def test_clenshaw_agrees_with_numpy(seed: int, degree: int) -> None:
    rng = np.random.default_rng(seed)
    coefficients, u = rng.normal(size=(3, degree + 1)), rng.uniform(-1.2, 1.2, (5, 3))
    expected = np.stack([chebyshev.chebval(u[:, i], coefficients[i]) for i in range(3)], axis=1)
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(ir.clenshaw(coefficients, u), expected, atol=1e-11 * scale)
