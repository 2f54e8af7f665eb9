"""Levels are spent as announced; scales are what a backend then sees."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import sparse

from he_infer.compiler.levels import (
    HEADROOM_BITS,
    LAZY_BITS,
    PLAIN_BITS,
    chain_of,
    choose_chains,
    choose_lazy,
    choose_params,
    output_scale_of,
)
from he_infer.errors import CompileError, DepthError, ParameterError
from he_infer.params import CKKSParams
from he_infer.plan import ir
from he_infer.plan.placement import Placement, depth_of, depths, place, polynomial_depth

PARAMS = CKKSParams.from_bits(16384, [40, 30, 30, 30, 30, 30], special_bits=45)


def affine(name: str, *sources: str) -> ir.Affine:
    eye = sparse.csr_array(np.eye(2))
    return ir.Affine(
        name=name,
        sources=sources,
        shape=(2,),
        matrices=(eye,) * len(sources),
        bias=np.zeros(2),
    )


def cubic(name: str, source: str) -> ir.Polynomial:
    return ir.Polynomial(
        name=name,
        source=source,
        shape=(2,),
        coefficients=np.ones((2, 4)),
        center=np.zeros(2),
        radius=np.ones(2),
    )


def residual() -> ir.Graph:
    """A skip around a cubic: 1 + 2 levels on one path, 1 on the other, then 1 + 1."""
    return ir.Graph(
        nodes=(
            ir.Input(name="x", shape=(2,)),
            affine("a", "x"),
            cubic("p", "a"),
            affine("sum", "p", "x"),
            ir.Square(name="s", source="sum", shape=(2,)),
        )
    )


@pytest.mark.parametrize(
    ("degree", "depth"),
    [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (15, 4), (16, 5), (31, 5), (32, 6)],
)
def test_polynomial_depth(degree: int, depth: int) -> None:
    assert polynomial_depth(degree) == depth


def test_the_deepest_path_counts() -> None:
    assert depths(residual(), lazy=False) == {"x": 0, "a": 1, "p": 3, "sum": 4, "s": 5}
    assert depths(residual(), lazy=True) == {"x": 0, "a": 1, "p": 3, "sum": 4, "s": 4}


def test_activations_have_no_depth_yet() -> None:
    node = ir.Activation(name="f", source="x", shape=(2,), label="relu", function=np.abs)
    with pytest.raises(CompileError, match=r"f \(relu\) is not a polynomial yet"):
        depth_of(node, lazy=False)


def test_values_are_placed_from_fresh_to_level_zero() -> None:
    graph = ir.Graph(nodes=(*residual().nodes[:-1],))
    params = CKKSParams.from_bits(16384, [40, 30, 30, 30, 30], special_bits=45)
    placed = place(graph, params, lazy=False, scale=2.0**30, output_scale=2.0**28)
    assert placed == {
        "x": Placement(level=4, scale=2.0**30),
        "a": Placement(level=3, scale=2.0**30),
        "p": Placement(level=1, scale=2.0**30),
        "sum": Placement(level=0, scale=2.0**28),
    }


def test_a_squares_scale_is_divided_by_the_prime_it_drops() -> None:
    graph = ir.Graph(nodes=(*residual().nodes, affine("last", "s")))
    params = CKKSParams.from_bits(16384, [40, 30, 30, 30, 30, 30, 30], special_bits=45)
    placed = place(graph, params, lazy=False, scale=2.0**30, output_scale=2.0**30)
    assert placed["s"].level == 1
    assert placed["s"].scale == 2.0**60 / params.primes[2] != 2.0**30
    assert placed["last"] == Placement(level=0, scale=2.0**30)


@pytest.mark.parametrize("length", [3, 6])
def test_the_chain_is_exactly_as_long_as_the_graph_is_deep(length: int) -> None:
    params = CKKSParams.from_bits(16384, [40, *[30] * length], special_bits=45)
    with pytest.raises(DepthError, match=f"needs 4 or 5 levels, the parameters have {length}"):
        chain_of(residual(), params)
    for lazy, needed in ((True, 4), (False, 5)):
        with pytest.raises(DepthError, match=f"needs {needed} levels, the parameters have"):
            place(residual(), params, lazy=lazy, scale=2.0**30, output_scale=2.0**30)


def squares(count: int) -> ir.Graph:
    """x → affine → (square → affine) × count."""
    nodes: list[ir.Node] = [ir.Input(name="x", shape=(2,)), affine("a0", "x")]
    for i in range(count):
        nodes.append(ir.Square(name=f"s{i}", source=f"a{i}", shape=(2,)))
        nodes.append(affine(f"a{i + 1}", f"s{i}"))
    return ir.Graph(nodes=tuple(nodes))


def test_lazy_squares_take_no_level_and_keep_the_squared_scale() -> None:
    graph = squares(2)
    (lazy, eager) = choose_chains(graph, precision_bits=10, output_bits=3)
    assert lazy.params.max_level == 3 and eager.params.max_level == 5
    assert lazy.lazy and not eager.lazy
    assert chain_of(graph, lazy.params).lazy and not chain_of(graph, eager.params).lazy
    assert max(q.bit_length() for q in lazy.params.primes) <= LAZY_BITS
    scale = 2.0**lazy.scale_bits
    placed = place(graph, lazy.params, lazy=True, scale=scale, output_scale=scale)
    assert placed["s0"] == Placement(level=2, scale=scale**2)
    assert placed["a1"] == Placement(level=1, scale=scale)
    for name, source in (("a1", "s0"), ("a2", "s1")):
        dropped = lazy.params.primes[placed[name].level + 1]
        weights = math.log2(placed[name].scale * dropped / placed[source].scale)
        assert weights == pytest.approx(PLAIN_BITS, abs=0.1)


def test_a_chain_of_lazy_length_but_narrow_primes_is_refused() -> None:
    params = CKKSParams.from_bits(8192, [40, 30, 30, 30], special_bits=45)
    with pytest.raises(DepthError, match="needs 5 levels, the parameters have 3"):
        chain_of(squares(2), params)


def test_more_precision_than_lazy_chains_have_is_eager() -> None:
    chains = choose_chains(squares(1), precision_bits=18, output_bits=3)
    assert [chain.params.max_level for chain in chains] == [3]


def test_without_squares_there_is_nothing_to_be_lazy_about() -> None:
    graph = ir.Graph(nodes=(ir.Input(name="x", shape=(2,)), affine("a", "x"), cubic("p", "a")))
    assert choose_lazy(graph, precision_bits=5, output_bits=3, least_n=4096) is None


@pytest.mark.parametrize("output_range", [1.0, 5.0, 300.0, 1e5])
def test_the_output_scale_leaves_headroom(output_range: float) -> None:
    scale = output_scale_of(PARAMS, output_range, 2.0**30)
    assert scale <= 2.0**30
    # Sign and outliers: 2^HEADROOM_BITS times the largest output still fits.
    assert output_range * scale * 2**HEADROOM_BITS <= PARAMS.primes[0]
    assert scale == 2.0**30 or output_range * scale * 2 ** (HEADROOM_BITS + 1) > PARAMS.primes[0]


def test_outputs_beyond_the_first_prime() -> None:
    with pytest.raises(ParameterError, match="make that prime wider"):
        output_scale_of(PARAMS, 2.0**30, 2.0**30)


def test_chosen_primes_hold_the_outputs_they_were_chosen_for() -> None:
    for output_bits in (0, 3, 8):
        params, bits = choose_params(3, precision_bits=10, output_bits=output_bits)
        assert output_scale_of(params, 0.999 * 2.0**output_bits, 2.0**bits) == 2.0**bits
        assert math.log2(params.special_prime) > math.log2(params.primes[0])


def test_more_precision_takes_wider_primes_or_a_larger_ring() -> None:
    low, low_bits = choose_params(5, precision_bits=6, output_bits=3)
    high, high_bits = choose_params(5, precision_bits=20, output_bits=3)
    assert high.n > low.n and high_bits > low_bits


def test_the_scale_follows_the_callers_primes() -> None:
    assert chain_of(residual(), PARAMS).scale_bits == 30
    single = ir.Graph(nodes=(ir.Input(name="x", shape=(2,)),))
    alone = CKKSParams.from_bits(4096, [40], special_bits=50)
    assert chain_of(single, alone).scale_bits == 30
