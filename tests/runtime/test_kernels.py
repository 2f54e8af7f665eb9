"""Polynomials are evaluated exactly, at the depth that was announced for them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev

from he_infer.params import CKKSParams
from he_infer.plan.ir import FloatArray
from he_infer.plan.placement import polynomial_depth
from he_infer.plan.steps import PolynomialStep, SquareStep
from he_infer.runtime.backends.plain import PlainBackend
from he_infer.runtime.backends.slotwise import Slots
from he_infer.runtime.executor import EncodedWeights
from he_infer.runtime.kernels import Machine, divide, run_step

PARAMS = CKKSParams.from_bits(8192, [36, 30, 30, 30, 30], special_bits=36)
SCALE = 2.0**30
POINTS = np.random.default_rng(0).uniform(-1, 1, PARAMS.slots)


def machine_for(backend: PlainBackend, batch: int) -> Machine[Slots, Slots]:
    weights = EncodedWeights(backend)
    return Machine(backend=backend, plaintexts=weights, batch=batch)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), order=st.integers(1, 16), extra=st.integers(0, 15))
def test_chebyshev_division(seed: int, order: int, extra: int) -> None:
    """p = high · T_order + low, deg(low) < order: the identity Paterson–Stockmeyer rests on."""
    degree = order + min(extra, order - 1)
    p = np.random.default_rng(seed).normal(size=degree + 1)
    kept = p.copy()
    high, low = divide(p, order)
    np.testing.assert_array_equal(p, kept)
    assert len(low) == order and len(high) == degree - order + 1
    u = np.linspace(-1, 1, 50)
    t_order = chebyshev.chebval(u, [0.0] * order + [1.0])
    product = chebyshev.chebval(u, high) * t_order + chebyshev.chebval(u, low)
    np.testing.assert_allclose(product, chebyshev.chebval(u, p), atol=1e-10)


def evaluate(coefficients: FloatArray, *, batch: int, start: int) -> tuple[FloatArray, int]:
    """Run one PolynomialStep on POINTS; returns the slots and the levels it took."""
    degree = len(coefficients) - 1
    backend = PlainBackend(PARAMS, steps=())
    u = backend.drop_to(backend.encrypt(POINTS, scale=SCALE), start)
    step = PolynomialStep(
        name="p",
        sources=("u",),
        coefficients=coefficients[:, None, :],
        level=start - polynomial_depth(degree),
        scale=2.0**29.5,
    )
    (result,) = run_step(machine_for(backend, batch), step, [[u]])
    assert backend.scale(result) == pytest.approx(2.0**29.5, rel=1e-9)
    return backend.decrypt(result).real, start - backend.level(result)


@pytest.mark.parametrize("degree", range(1, 16))
def test_polynomials_are_exact_and_as_deep_as_announced(degree: int) -> None:
    coefficients = np.random.default_rng(degree).normal(size=(degree + 1, 1))
    got, levels = evaluate(coefficients, batch=PARAMS.slots, start=PARAMS.max_level)
    np.testing.assert_allclose(got, chebyshev.chebval(POINTS, coefficients[:, 0]), atol=1e-10)
    assert levels == polynomial_depth(degree) == int(np.ceil(np.log2(degree + 1)))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    degree=st.integers(2, 15),
    period=st.sampled_from([2, 8, 64]),
    batch=st.sampled_from([1, 4, 16]),
    sparse=st.booleans(),
)
def test_every_slot_has_its_own_polynomial(
    seed: int, degree: int, period: int, batch: int, sparse: bool
) -> None:
    rng = np.random.default_rng(seed)
    coefficients = rng.normal(size=(degree + 1, period))
    if sparse:  # vanishing coefficients, the leading one of some slots among them
        coefficients *= rng.random(coefficients.shape) < 0.4
    got, _ = evaluate(coefficients, batch=batch, start=PARAMS.max_level)
    by_slot = np.repeat(np.tile(coefficients, PARAMS.slots // (period * batch)), batch, axis=1)
    expected = chebyshev.chebval(POINTS, by_slot, tensor=False)
    np.testing.assert_allclose(got, expected, atol=1e-10)


def test_a_polynomial_can_start_below_the_top() -> None:
    coefficients = np.random.default_rng(0).normal(size=(4, 1))
    got, levels = evaluate(coefficients, batch=PARAMS.slots, start=2)
    np.testing.assert_allclose(got, chebyshev.chebval(POINTS, coefficients[:, 0]), atol=1e-10)
    assert levels == 2


@pytest.mark.parametrize("rescales", [True, False])
@pytest.mark.parametrize("relinearizes", [True, False])
def test_squares_rescale_and_relinearize_now_or_later(rescales: bool, relinearizes: bool) -> None:
    backend = PlainBackend(PARAMS)
    inputs = [backend.encrypt(POINTS * k, scale=SCALE) for k in (1.0, 2.0)]
    step = SquareStep(name="s", sources=("u",), rescales=rescales, relinearizes=relinearizes)
    results = run_step(machine_for(backend, 1), step, [inputs])
    for k, result in zip((1.0, 2.0), results, strict=True):
        np.testing.assert_allclose(backend.decrypt(result).real, (k * POINTS) ** 2, atol=1e-12)
        assert result.level == PARAMS.max_level - rescales
        assert result.size == (2 if relinearizes else 3)


def test_vectors_are_encoded_once_and_scalars_are_not_kept() -> None:
    backend = PlainBackend(PARAMS)
    weights = EncodedWeights(backend)
    asked: list[str] = []

    def build(value: FloatArray | float) -> FloatArray | float:
        asked.append("built")
        return value

    vector = np.ones(PARAMS.slots)
    first = weights(("v",), lambda: build(vector), level=1, scale=SCALE)
    assert weights(("v",), lambda: build(vector), level=1, scale=SCALE) is first
    assert len(asked) == 1
    weights(("c",), lambda: build(2.0), level=1, scale=SCALE)
    assert set(weights.stored) == {("v",)}
