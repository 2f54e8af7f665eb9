"""Levels are spent as announced; scales are what a backend then sees."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import sparse

from he_infer import ir
from he_infer.errors import CompileError, DepthError, ParameterError
from he_infer.levels import (
    HEADROOM_BITS,
    Placement,
    choose_params,
    depth_of,
    depths,
    output_scale_of,
    place,
    polynomial_depth,
    scale_bits_of,
)
from he_infer.params import CKKSParams

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
    assert depths(residual()) == {"x": 0, "a": 1, "p": 3, "sum": 4, "s": 5}


def test_activations_have_no_depth_yet() -> None:
    node = ir.Activation(name="f", source="x", shape=(2,), label="relu", function=np.abs)
    with pytest.raises(CompileError, match=r"f \(relu\) is not a polynomial yet"):
        depth_of(node)


def test_values_are_placed_from_fresh_to_level_zero() -> None:
    graph = ir.Graph(nodes=(*residual().nodes[:-1],))
    params = CKKSParams.from_bits(16384, [40, 30, 30, 30, 30], special_bits=45)
    placed = place(graph, params, scale=2.0**30, output_scale=2.0**28)
    assert placed == {
        "x": Placement(level=4, scale=2.0**30),
        "a": Placement(level=3, scale=2.0**30),
        "p": Placement(level=1, scale=2.0**30),
        "sum": Placement(level=0, scale=2.0**28),
    }


def test_a_squares_scale_is_divided_by_the_prime_it_drops() -> None:
    graph = ir.Graph(nodes=(*residual().nodes, affine("last", "s")))
    params = CKKSParams.from_bits(16384, [40, 30, 30, 30, 30, 30, 30], special_bits=45)
    placed = place(graph, params, scale=2.0**30, output_scale=2.0**30)
    assert placed["s"].level == 1
    assert placed["s"].scale == 2.0**60 / params.primes[2] != 2.0**30
    assert placed["last"] == Placement(level=0, scale=2.0**30)


@pytest.mark.parametrize("length", [4, 6])
def test_the_chain_is_exactly_as_long_as_the_graph_is_deep(length: int) -> None:
    params = CKKSParams.from_bits(16384, [40, *[30] * length], special_bits=45)
    with pytest.raises(DepthError, match=f"needs 5 levels, the parameters have {length}"):
        place(residual(), params, scale=2.0**30, output_scale=2.0**30)


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
    assert scale_bits_of(PARAMS) == 30
    assert scale_bits_of(CKKSParams.from_bits(4096, [40], special_bits=50)) == 30
