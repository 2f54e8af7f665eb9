"""Every pass keeps what a graph computes; normal form is normal; squares cost one level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse

from he_infer.activations import approx
from he_infer.compiler import passes
from he_infer.compiler.intervals import Interval, calibrate, layer_interval
from he_infer.compiler.pipeline import Approximation, to_normal_form, to_polynomials
from he_infer.errors import CompileError, InputError
from he_infer.plan import ir
from he_infer.plan.placement import depths

SEEDS = st.integers(min_value=0, max_value=2**32 - 1)
LEADING = (1.0, -0.7, 1e-3, -1e-3, 1e-7, 1e-13, 0.0)
# Powers of powers reach 10^58 in one graph of 10^5. No interval of a layer is narrower than a
# sixteenth of its widest, so that doubles no longer resolve features of order one beside these.
TAME = 1e5


def quadratic_node(
    name: str, source: str, a: ir.FloatArray, b: ir.FloatArray, c: ir.FloatArray
) -> ir.Polynomial:
    """a·u² + b·u + c on u = (x − 0.3) / 2 in the Chebyshev basis: u² = (T_0 + T_2) / 2."""
    size = len(a)
    return ir.Polynomial(
        name=name,
        source=source,
        shape=(size,),
        coefficients=np.stack([c + a / 2, b, a / 2], axis=1),
        center=np.full(size, 0.3),
        radius=np.full(size, 2.0),
    )


def random_affine(
    rng: np.random.Generator, name: str, sources: dict[str, int], size: int, density: float = 0.7
) -> ir.Affine:
    return ir.Affine(
        name=name,
        sources=tuple(sources),
        shape=(size,),
        matrices=tuple(
            sparse.csr_array(rng.normal(size=(size, n)) * (rng.random((size, n)) < density))
            for n in sources.values()
        ),
        bias=rng.normal(size=size),
    )


def random_nonlinear(rng: np.random.Generator, name: str, source: str, size: int) -> ir.Node:
    kind = rng.integers(5)
    if kind == 0:
        return ir.Square(name=name, source=source, shape=(size,))
    if kind == 1:
        return ir.Polynomial(
            name=name,
            source=source,
            shape=(size,),
            coefficients=rng.normal(size=(size, int(rng.integers(2, 7)))),
            center=rng.normal(size=size),
            radius=rng.uniform(0.5, 3, size=size),
        )
    # Each feature has its own kind of quadratic: curved, nearly straight, straight, constant.
    a = rng.choice(LEADING, size=size)
    b = rng.choice([1.0, -0.5, 0.0, 0.02], size=size)
    return quadratic_node(name, source, a, b, rng.normal(size=size))


def random_graph(seed: int) -> ir.Graph:
    """A few layers in which any node may read any earlier one, additions included."""
    rng = np.random.default_rng(seed)
    sizes = {"input": int(rng.integers(1, 5))}
    nodes: list[ir.Node] = [ir.Input(name="input", shape=(sizes["input"],))]
    for i in range(int(rng.integers(1, 7))):
        name = f"n{i}"
        if rng.random() < 0.5:
            count = min(len(sizes), int(rng.integers(1, 4)))
            chosen = rng.choice(list(sizes), size=count, replace=False)
            sizes[name] = int(rng.integers(1, 5))
            sources = {str(s): sizes[str(s)] for s in chosen}
            nodes.append(random_affine(rng, name, sources, sizes[name]))
        else:
            source = str(rng.choice(list(sizes)))
            sizes[name] = sizes[source]
            nodes.append(random_nonlinear(rng, name, source, sizes[name]))
    graph = ir.Graph(nodes=tuple(nodes))
    ir.verify(graph)
    return graph


def sample_of(graph: ir.Graph, count: int = 40) -> ir.FloatArray:
    return np.random.default_rng(1).uniform(-1, 1, (count, ir.features(graph.input)))


def output_of(graph: ir.Graph, records: ir.FloatArray) -> ir.FloatArray:
    return ir.evaluate(graph, records)[graph.output.name]


def largest_of(graph: ir.Graph, records: ir.FloatArray) -> float:
    return max(float(np.abs(v).max()) for v in ir.evaluate(graph, records).values())


def assert_same(before: ir.Graph, after: ir.Graph, records: ir.FloatArray) -> None:
    expected, got = output_of(before, records), output_of(after, records)
    # Completing squares cancels up to MAX_SHIFT², and every layer may amplify what is left.
    largest = largest_of(before, records)
    np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-8 * max(1.0, largest))


PASSES: dict[str, Callable[[ir.Graph, ir.FloatArray], ir.Graph]] = {
    "isolate_polynomials": lambda g, x: passes.isolate_polynomials(g),
    "normalise": lambda g, x: passes.normalise(g, calibrate(g, x)),
    "complete_squares": lambda g, x: passes.complete_squares(
        passes.normalise(g, calibrate(g, x))  # it reads coefficients in the calibrated u
    ),
    "end_with_affine": lambda g, x: passes.end_with_affine(g),
    "merge_affine": lambda g, x: passes.merge_affine(g),
    "to_normal_form": to_normal_form,
}


@pytest.mark.parametrize("name", PASSES)
@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_a_pass_preserves_what_the_graph_computes(name: str, seed: int) -> None:
    graph = random_graph(seed)
    records = sample_of(graph)
    assume(largest_of(graph, records) < TAME)
    assert_same(graph, PASSES[name](graph, records), records)


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS)
def test_normal_form_is_normal(seed: int) -> None:
    graph = random_graph(seed)
    normal = to_normal_form(graph, sample_of(graph))
    for node in normal:
        for source in node.sources:
            affine_reads = isinstance(node, ir.Affine)
            assert isinstance(normal[source], ir.Affine) != affine_reads, node.name
    assert isinstance(normal.output, ir.Affine)
    used = {source for node in normal for source in node.sources} | {normal.output.name}
    assert {node.name for node in normal} - used <= {normal.input.name}
    if any(isinstance(node, ir.Square) for node in graph):
        return  # a bare square is taken as it is; only polynomials are scaled to [−1, 1]
    if largest_of(graph, sample_of(graph)) >= TAME:
        return
    values = ir.evaluate(normal, sample_of(graph))
    for node in normal:
        if isinstance(node, ir.Polynomial | ir.Square):
            assert np.abs(values[node.source]).max() <= 1 + 1e-9, node.name
        if isinstance(node, ir.Polynomial):
            assert (node.center == 0).all() and (node.radius == 1).all()


def two_layers(activation: ir.Node, size: int) -> ir.Graph:
    rng = np.random.default_rng(3)
    return ir.Graph(
        nodes=(
            ir.Input(name="input", shape=(size,)),
            random_affine(rng, "first", {"input": size}, size, density=1.0),
            activation,
            random_affine(rng, "last", {activation.name: size}, 2, density=1.0),
        )
    )


def test_a_completed_square_takes_one_level_whatever_its_coefficients() -> None:
    a, b = np.array([2.0, -1.0, 0.05, 0.0, 0.0]), np.array([0.3, 0.0, -0.9, 1.5, 0.0])
    graph = two_layers(quadratic_node("act", "first", a, b, 0 * a - 1), 5)
    records = sample_of(graph)
    normal = to_normal_form(graph, records)
    assert depths(normal, lazy=False)[normal.output.name] == 3
    # The linear channels go around the square: the last layer takes them from the input.
    assert [type(node) for node in normal] == [ir.Input, ir.Affine, ir.Square, ir.Affine]
    assert set(normal.output.sources) == {"input", "act.square"}
    assert_same(graph, normal, records)


def test_a_purely_quadratic_layer_stays_a_chain() -> None:
    graph = two_layers(quadratic_node("act", "first", np.ones(3), np.ones(3), np.ones(3)), 3)
    normal = to_normal_form(graph, sample_of(graph))
    assert [type(node) for node in normal] == [ir.Input, ir.Affine, ir.Square, ir.Affine]


@pytest.mark.parametrize(("share", "completed"), [(0.9, True), (1.1, False)])
def test_a_shift_beyond_the_limit_keeps_the_polynomial(share: float, completed: bool) -> None:
    a = np.array([1.0, 1.0])
    b = np.array([1.0, 2 * passes.MAX_SHIFT * share])
    node = replace(
        quadratic_node("act", "input", a, b, 0 * a), center=np.zeros(2), radius=np.ones(2)
    )
    graph = ir.Graph(nodes=(ir.Input(name="input", shape=(2,)), node))
    after = passes.complete_squares(graph)
    assert any(isinstance(node, ir.Square) for node in after) == completed
    assert_same(graph, after, sample_of(graph))


def test_adding_the_same_layer_twice_merges_to_one_matrix() -> None:
    rng = np.random.default_rng(0)
    first = random_affine(rng, "first", {"input": 3}, 3)
    skip = random_affine(rng, "skip", {"input": 3, "first": 3}, 2)
    graph = ir.Graph(nodes=(ir.Input(name="input", shape=(3,)), first, skip))
    merged = passes.merge_affine(graph)
    assert [node.name for node in merged] == ["input", "skip"]
    assert merged.output.sources == ("input",)
    assert_same(graph, merged, sample_of(graph))


def test_activations_are_fitted_behind_the_ones_before_them() -> None:
    rng = np.random.default_rng(4)
    graph = ir.Graph(
        nodes=(
            ir.Input(name="input", shape=(4,)),
            random_affine(rng, "a", {"input": 4}, 4),
            ir.Activation(name="f", source="a", shape=(4,), label="tanh", function=np.tanh),
            random_affine(rng, "b", {"f": 4}, 3),
            ir.Activation(name="g", source="b", shape=(3,), label="tanh", function=np.tanh),
        )
    )
    records = sample_of(graph, 300)
    approximation = Approximation(method=approx.least_squares, degree=15)
    result = to_polynomials(graph, records, approximation)
    assert not any(isinstance(node, ir.Activation) for node in result)
    assert np.abs(output_of(graph, records) - output_of(result, records)).max() < 0.02
    interval = calibrate(result, records)["g"]
    node = result["g"]
    assert isinstance(node, ir.Polynomial)
    center, radius = layer_interval(interval)
    np.testing.assert_allclose(node.center, center)
    np.testing.assert_allclose(node.radius, radius)


# -- calibration and verification ----------------------------------------------------------


def test_intervals_cover_the_sample_with_a_margin_and_never_collapse() -> None:
    graph = ir.Graph(
        nodes=(ir.Input(name="input", shape=(3,)), ir.Square(name="s", source="input", shape=(3,)))
    )
    records = np.array([[0.0, 5.0, -4.0], [2.0, 5.0, 4.0]])
    interval = calibrate(graph, records)["s"]
    np.testing.assert_allclose(interval.center, [1.0, 5.0, 0.0])
    np.testing.assert_allclose(interval.radius, [1.1, 4.4 / 16, 4.4])


@pytest.mark.parametrize("wobble", [0.0, 1e-14])
def test_a_layer_that_is_constant_up_to_rounding_keeps_a_wide_interval(wobble: float) -> None:
    graph = ir.Graph(
        nodes=(ir.Input(name="input", shape=(2,)), ir.Square(name="s", source="input", shape=(2,)))
    )
    interval = calibrate(graph, np.array([[0.5, 0.0], [0.5 + wobble, 0.0]]))["s"]
    np.testing.assert_allclose(interval.radius, [1 / 16, 1 / 16])


@pytest.mark.parametrize("records", [np.zeros((0, 2)), np.array([[1.0, np.nan]])])
def test_samples_that_cannot_calibrate(records: ir.FloatArray) -> None:
    graph = ir.Graph(nodes=(ir.Input(name="input", shape=(2,)),))
    with pytest.raises(InputError):
        calibrate(graph, records)


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS, degree=st.integers(0, 8))
def test_rebasing_keeps_the_polynomial(seed: int, degree: int) -> None:
    rng = np.random.default_rng(seed)
    node = ir.Polynomial(
        name="p",
        source="input",
        shape=(3,),
        coefficients=rng.normal(size=(3, degree + 1)),
        center=rng.normal(size=3),
        radius=rng.uniform(0.5, 2, size=3),
    )
    interval = Interval(center=node.center + 0.2, radius=node.radius * 0.9)
    x = interval.center + interval.radius * rng.uniform(-1, 1, (20, 3))
    expected = ir.clenshaw(node.coefficients, (x - node.center) / node.radius)
    rebased = passes.rebase(node, interval.center, interval.radius)
    got = ir.clenshaw(rebased, (x - interval.center) / interval.radius)
    np.testing.assert_allclose(got, expected, atol=1e-10)


def broken_graphs() -> dict[str, tuple[ir.Node, ...]]:
    start = ir.Input(name="input", shape=(2,))
    rng = np.random.default_rng(0)
    good = random_affine(rng, "a", {"input": 2}, 2)
    nan = sparse.csr_array(np.array([[np.nan, 0.0], [0.0, 1.0]]))
    return {
        "starts with its input": (good,),
        "two nodes are called a": (start, good, good),
        "does not come before": (start, random_affine(rng, "a", {"b": 2}, 2)),
        "exactly one input": (start, ir.Input(name="again", shape=(2,))),
        "expected": (start, random_affine(rng, "a", {"input": 3}, 2)),
        "weights are not finite": (
            start,
            ir.Affine(name="a", sources=("input",), shape=(2,), matrices=(nan,), bias=np.zeros(2)),
        ),
        "bias must be": (
            start,
            ir.Affine(
                name="a", sources=("input",), shape=(2,), matrices=good.matrices, bias=np.zeros(3)
            ),
        ),
        "one matrix for each": (
            start,
            ir.Affine(name="a", sources=("input",), shape=(2,), matrices=(), bias=np.zeros(2)),
        ),
        "feature count changes": (start, ir.Square(name="s", source="input", shape=(3,))),
        "radius must be positive": (
            start,
            ir.Polynomial(
                name="p",
                source="input",
                shape=(2,),
                coefficients=np.ones((2, 2)),
                center=np.zeros(2),
                radius=np.array([1.0, 0.0]),
            ),
        ),
        "no features": (ir.Input(name="input", shape=(0,)),),
    }


@pytest.mark.parametrize("message", broken_graphs())
def test_verify_names_the_defect(message: str) -> None:
    with pytest.raises(CompileError, match=message):
        ir.verify(ir.Graph(nodes=broken_graphs()[message]))
