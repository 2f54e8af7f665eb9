"""Polynomial activations: values, gradients, the bounds that training keeps, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from he_infer.activations.layer import PolynomialActivation
from he_infer.errors import ApproximationError, InputError


@given(st.integers(1, 7), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_values_match_numpy(degree: int, channels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    coefficients = rng.normal(size=(channels, degree + 1))
    center, radius = rng.normal(size=channels), rng.uniform(0.5, 3, size=channels)
    layer = PolynomialActivation(
        torch.from_numpy(coefficients),
        center=torch.from_numpy(center),
        radius=torch.from_numpy(radius),
    )
    x = rng.uniform(-3, 3, size=(2, channels, 3, 2))
    y = layer(torch.from_numpy(x)).detach().numpy()
    for c in range(channels):
        u = (x[:, c] - center[c]) / radius[c]
        # Summing degree + 1 terms of size up to 13^7 in double precision.
        np.testing.assert_allclose(
            y[:, c], np.polynomial.polynomial.polyval(u, coefficients[c]), rtol=1e-9, atol=1e-6
        )
    assert layer.degree == degree
    assert layer.channels == channels


def test_one_channel_is_shared_and_any_rank_works() -> None:
    layer = PolynomialActivation(torch.tensor([[1.0, 0.0, 2.0]]), center=1.0, radius=2.0)
    for shape in ((3, 5), (3, 5, 2), (3, 5, 2, 2)):
        torch.testing.assert_close(layer(torch.full(shape, 5.0)), torch.full(shape, 9.0))


def test_gradients_reach_the_coefficients() -> None:
    layer = PolynomialActivation.quadratic(2).double()
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    layer(x).sum().backward()
    powers = torch.stack([x**k for k in range(3)], dim=-1).sum(dim=0)
    torch.testing.assert_close(layer.coefficients.grad, powers)


def test_range_penalty_is_zero_inside_and_squared_outside() -> None:
    layer = PolynomialActivation(torch.tensor([[0.0, 1.0]]), center=1.0, radius=2.0)
    assert float(layer.range_penalty(torch.tensor([[3.0], [-1.0]]), 1.0)) == 0.0
    assert float(layer.range_penalty(torch.tensor([[7.0], [1.0]]), 1.0)) == pytest.approx(2.0)


@given(st.floats(-10, 10, width=32), st.floats(-1, 1, width=32), st.floats(-3, 3, width=32))
def test_keep_curved_bounds_leading_coefficient_and_shift(c: float, a: float, b: float) -> None:
    layer = PolynomialActivation(torch.tensor([[c, b, a]]))
    layer.keep_curved(min_leading=0.05, max_shift=4.0)
    constant, linear, leading = layer.coefficients[0].tolist()
    assert (constant, linear) == (0.0, pytest.approx(b))
    assert abs(leading) >= 0.05 * (1 - 1e-6)
    assert abs(linear / (2 * leading)) <= 4.0 * (1 + 1e-6)
    if a:
        assert math.copysign(1, leading) == math.copysign(1, a)
    if abs(a) >= max(0.05, abs(b) / 8) * (1 + 1e-6):
        assert leading == pytest.approx(a)


def test_state_round_trip() -> None:
    layer = PolynomialActivation(torch.tensor([[1.0, 2.0, 3.0]]), center=0.5, radius=4.0)
    other = PolynomialActivation.quadratic(1)
    other.load_state_dict(layer.state_dict())
    x = torch.linspace(-2, 2, 9).reshape(-1, 1)
    torch.testing.assert_close(other(x), layer(x))


@pytest.mark.parametrize(
    ("coefficients", "center", "radius"),
    [
        (torch.zeros(3), 0.0, 1.0),
        (torch.zeros(0, 3), 0.0, 1.0),
        (torch.zeros(1, 1), 0.0, 1.0),
        (torch.tensor([[0.0, math.nan]]), 0.0, 1.0),
        (torch.zeros(1, 3), math.inf, 1.0),
        (torch.zeros(1, 3), 0.0, 0.0),
        (torch.zeros(1, 3), 0.0, -1.0),
        (torch.zeros(2, 3), torch.zeros(3), 1.0),
    ],
)
def test_what_is_no_polynomial_is_refused(
    coefficients: torch.Tensor, center: torch.Tensor | float, radius: float
) -> None:
    with pytest.raises(ApproximationError):
        PolynomialActivation(coefficients, center=center, radius=radius)


def test_misuse_is_refused() -> None:
    with pytest.raises(ApproximationError):
        PolynomialActivation.quadratic(0)
    with pytest.raises(ApproximationError, match="only quadratics"):
        PolynomialActivation(torch.zeros(1, 4)).keep_curved(min_leading=0.1, max_shift=1.0)
    with pytest.raises(ApproximationError, match="positive"):
        PolynomialActivation.quadratic(1).keep_curved(min_leading=0.0, max_shift=1.0)
    for shape in ((4,), (4, 2)):
        with pytest.raises(InputError, match="expected"):
            PolynomialActivation.quadratic(3)(torch.zeros(shape))
