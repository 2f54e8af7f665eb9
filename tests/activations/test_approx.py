"""Approximation methods against closed forms, published coefficients and each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev as cheb

from he_infer.activations.approx import (
    FUNCTIONS,
    METHODS,
    Array,
    Function,
    Polynomial,
    chebyshev,
    composite_minimax,
    composite_sign,
    derivative_based,
    gelu,
    hermite,
    least_squares,
    minimax,
    relu,
    sigmoid,
    sign,
    silu,
    softplus,
    tanh,
    taylor,
    weighted_chebyshev,
)
from he_infer.errors import ApproximationError

SMOOTH = (sigmoid, tanh, gelu, silu, softplus)
intervals = st.tuples(st.floats(-9, 9), st.floats(0.5, 9)).map(lambda t: (t[0] - t[1], t[0] + t[1]))
# Around zero, where ReLU is not a polynomial: the centre is at most half a radius away.
wide = st.tuples(st.floats(-0.5, 0.5), st.floats(1, 9)).map(
    lambda t: (t[1] * (t[0] - 1), t[1] * (t[0] + 1))
)


def coefficients_in_x(polynomial: Polynomial) -> np.ndarray:
    """Ascending powers of x itself, as published tables give them."""
    inner = np.polynomial.Polynomial(
        [-polynomial.center / polynomial.radius, 1.0 / polynomial.radius]
    )
    composed = np.polynomial.Polynomial(polynomial.coefficients_power())(inner)
    power = np.zeros(polynomial.degree + 1)
    power[: composed.coef.size] = composed.coef
    return power


class TestPublished:
    def test_chebyshev_series_of_exp_are_bessel_functions(self) -> None:
        # exp(x) = I_0(1) + 2 Σ I_k(1) T_k(x); I_k(1) from Abramowitz and Stegun, table 9.8.
        bessel = np.array([1.2660658777520084, 0.5651591039924850, 0.1357476697670383])
        got = chebyshev(np.exp, interval=(-1.0, 1.0), degree=2).coefficients
        np.testing.assert_allclose(got, bessel * [1, 2, 2], rtol=1e-14)

    def test_least_squares_sigmoid_degree_3(self) -> None:
        # Kim, Song, Wang, Xia, Jiang (2018): 0.5 + 1.20096·(x/8) - 0.81562·(x/8)³.
        got = least_squares(sigmoid, interval=(-8.0, 8.0), degree=3).coefficients_power()
        np.testing.assert_allclose(got, [0.5, 1.20096, 0.0, -0.81562], atol=6e-6)

    def test_least_squares_sigmoid_degree_7(self) -> None:
        # The same paper; its authors sampled a finite grid, hence the looser tolerance.
        got = least_squares(sigmoid, interval=(-8.0, 8.0), degree=7).coefficients_power()
        expected = [0.5, 1.73496, 0.0, -4.19407, 0.0, 5.43402, 0.0, -2.50739]
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-9)

    def test_minimax_of_the_absolute_value_degree_2(self) -> None:
        got = minimax(np.abs, interval=(-1.0, 1.0), degree=2)
        np.testing.assert_allclose(got.coefficients_power(), [0.125, 0.0, 1.0], atol=1e-12)
        assert got.sup_error == pytest.approx(0.125, abs=1e-12)

    def test_minimax_of_the_absolute_value_tends_to_bernsteins_constant(self) -> None:
        # Varga and Carpenter (1985): 2n·E_2n(|x|) → 0.2801694990…, with a correction of
        # about -0.0440 / n².
        error = minimax(np.abs, interval=(-1.0, 1.0), degree=40).sup_error
        assert 40 * error == pytest.approx(0.2801694990 - 0.04396753 / 20**2, abs=1e-6)

    @pytest.mark.parametrize(
        ("degree", "error"),
        # E_1 has the closed form below; E_3 is close to the Carathéodory-Fejér value of exp.
        [(1, 0.27880158584), (3, 0.00552837)],
    )
    def test_minimax_of_exp(self, degree: int, error: float) -> None:
        got = minimax(np.exp, interval=(-1.0, 1.0), degree=degree)
        assert got.sup_error == pytest.approx(error, rel=1e-6)

    def test_minimax_of_exp_degree_1_closed_form(self) -> None:
        # Slope sinh(1), tangent at log(sinh 1): the alternation is (-1, log sinh 1, 1).
        slope = math.sinh(1.0)
        constant = 0.5 * ((math.e - slope) + (slope - slope * math.log(slope)))
        got = minimax(np.exp, interval=(-1.0, 1.0), degree=1)
        np.testing.assert_allclose(got.coefficients_power(), [constant, slope], rtol=1e-11)

    def test_minimax_of_exp_is_near_the_caratheodory_fejer_polynomial(self) -> None:
        # google/heir, CaratheodoryFejerTest: near-best coefficients of exp, degree 3.
        near = np.array(
            [0.9945811640427066, 0.9956553725361579, 0.5429702814725632, 0.1795458211087378]
        )
        best = minimax(np.exp, interval=(-1.0, 1.0), degree=3)
        x = np.linspace(-1.0, 1.0, 20_001)
        near_error = np.abs(np.exp(x) - np.polynomial.polynomial.polyval(x, near)).max()
        np.testing.assert_allclose(best.coefficients_power(), near, atol=2e-5)
        assert best.sup_error <= near_error <= 1.001 * best.sup_error

    @pytest.mark.parametrize(
        ("gap", "stages"),
        # Lee et al., arXiv:2105.10879, the odd coefficients for precision 7 and 10. The gaps
        # are where the published first stage falls to its levelled error.
        [
            (
                11 / 128,
                [
                    [7.30445164958251, -34.6825871108659, 59.8596518298826, -31.8755225906466],
                    [2.40085652217597, -2.63125454261783, 1.54912674773593, -0.331172956504304],
                ],
            ),
            (
                13 / 1024,
                [
                    [10.8541842577442, -62.2833925211098, 114.369227820443, -62.8023496973074],
                    [4.13976170985111, -5.84997640211679, 2.94376255659280, -0.454530437460152],
                    [
                        3.29956739043733,
                        -7.84227260291355,
                        12.8907764115564,
                        -12.4917112584486,
                        6.94167991428074,
                        -2.04298067399942,
                        0.246407138926031,
                    ],
                ],
            ),
        ],
    )
    def test_composite_sign(self, gap: float, stages: list[list[float]]) -> None:
        degrees = [2 * len(stage) - 1 for stage in stages]
        got = composite_sign(radius=1.0, degrees=degrees, gap=gap)
        for stage, expected in zip(got.stages, stages, strict=True):
            np.testing.assert_allclose(coefficients_in_x(stage)[1::2], expected, rtol=3e-6)

    def test_composite_relu_reaches_its_published_precision(self) -> None:
        # The same paper: precision 7 means an error of at most 2⁻⁷ for ReLU on [-1, 1].
        x = np.linspace(-1.0, 1.0, 100_001)
        chain = composite_sign(radius=1.0, degrees=(7, 7), gap=11 / 128)
        assert np.abs(chain.relu(x) - relu(x)).max() <= 2.0**-7
        assert chain.depth == 6

    def test_hermite_coefficients_of_relu(self) -> None:
        # AESPA (arXiv:2201.06699): 1/√(2π)·h_0 + ½·h_1 + 1/√(4π)·h_2, h_2 = (x² - 1)/√2.
        got = coefficients_in_x(hermite(relu, interval=(-4.0, 4.0), degree=2))
        second = 1.0 / math.sqrt(8.0 * math.pi)
        expected = [1.0 / math.sqrt(2.0 * math.pi) - second, 0.5, second]
        np.testing.assert_allclose(got, expected, rtol=1e-12)

    @pytest.mark.parametrize(
        ("function", "series"),
        [
            (sigmoid, [1 / 2, 1 / 4, 0, -1 / 48, 0, 1 / 480]),
            (tanh, [0, 1, 0, -1 / 3, 0, 2 / 15]),
            (softplus, [math.log(2), 1 / 2, 1 / 8, 0, -1 / 192, 0]),
            (silu, [0, 1 / 2, 1 / 4, 0, -1 / 48, 0]),
            (gelu, [0, 0.5, 0.3989422804014327, 0, -0.06649038006690545, 0]),
        ],
    )
    def test_taylor_series(self, function: Function, series: list[float]) -> None:
        got = coefficients_in_x(taylor(function, interval=(-2.0, 2.0), degree=5))
        np.testing.assert_allclose(got, series, atol=1e-14)

    def test_step_derivative_has_a_closed_form_at_degree_2(self) -> None:
        # Under any even weight the step is ½ + c·x, so CryptoDL's ReLU is ½x + (c/2)·x² + d,
        # and c = ∫₀¹ w x dx / ∫₋₁¹ w x² dx.
        x = np.linspace(0.0, 1.0, 200_001)[1:]
        w = np.exp(-1.0 / (1e-5 + x * x))
        c = np.sum(w * x) / (2 * np.sum(w * x * x))
        got = derivative_based(relu, interval=(-1.0, 1.0), degree=2).coefficients_power()
        np.testing.assert_allclose(got[1:], [0.5, c / 2], rtol=1e-4)


class TestProperties:
    @settings(max_examples=25, deadline=None)
    @given(
        interval=wide,
        degree=st.integers(1, 9),
        name=st.sampled_from(sorted(FUNCTIONS)),
        method=st.sampled_from(sorted(METHODS)),
    )
    def test_minimax_beats_every_other_method(
        self, interval: tuple[float, float], degree: int, name: str, method: str
    ) -> None:
        function = FUNCTIONS[name]
        best = minimax(function, interval=interval, degree=degree).sup_error
        try:
            other = METHODS[method](function, interval=interval, degree=degree)
        except ApproximationError:
            # Only these two refuse a function, or a degree too low for a chain.
            assert method == "composite_minimax" or (method, name) == ("taylor", "relu")
            return
        assert best <= other.sup_error * (1 + 1e-9) + 1e-12
        assert other.degree <= degree

    @settings(max_examples=25, deadline=None)
    @given(interval=wide, degree=st.integers(0, 8), name=st.sampled_from(sorted(FUNCTIONS)))
    def test_minimax_error_falls_with_the_degree(
        self, interval: tuple[float, float], degree: int, name: str
    ) -> None:
        low, high = (
            minimax(FUNCTIONS[name], interval=interval, degree=d).sup_error
            for d in (degree, degree + 2)
        )
        assert high < low

    @settings(max_examples=25, deadline=None)
    @given(interval=wide, degree=st.integers(0, 8), name=st.sampled_from(sorted(FUNCTIONS)))
    def test_minimax_equioscillates(
        self, interval: tuple[float, float], degree: int, name: str
    ) -> None:
        function = FUNCTIONS[name]
        best = minimax(function, interval=interval, degree=degree)
        x = np.linspace(*interval, 200_001)
        error = function(x) - best(x)
        extreme = np.sign(error[np.abs(error) >= best.sup_error * (1 - 1e-3)])
        assert 1 + np.count_nonzero(np.diff(extreme)) >= degree + 2

    @settings(max_examples=60, deadline=None)
    @given(
        interval=wide,
        coefficients=st.lists(st.floats(-3, 3), min_size=2, max_size=7),
        spare=st.integers(0, 2),
        method=st.sampled_from(sorted(set(METHODS) - {"composite_minimax"})),
    )
    def test_polynomials_are_reproduced(
        self,
        interval: tuple[float, float],
        coefficients: list[float],
        spare: int,
        method: str,
    ) -> None:
        def function(x: Array) -> Array:
            u = (x - 0.5 * (interval[0] + interval[1])) / (0.5 * (interval[1] - interval[0]))
            return np.asarray(cheb.chebval(u, coefficients))

        degree = len(coefficients) - 1 + spare
        got = METHODS[method](function, interval=interval, degree=degree)
        # Central differences and one-sided Taylor fits lose digits; the others only round.
        tolerance = 1e-5 if method in ("derivative_based", "taylor") else 1e-8
        assert got.sup_error <= tolerance * (1 + max(map(abs, coefficients)))

    @settings(max_examples=40, deadline=None)
    @given(
        shift=st.floats(-20, 20),
        stretch=st.floats(0.1, 10),
        degree=st.integers(1, 7),
        function=st.sampled_from(SMOOTH),
        method=st.sampled_from([least_squares, chebyshev, minimax, hermite]),
    )
    def test_moving_the_interval_moves_the_polynomial(
        self, shift: float, stretch: float, degree: int, function: Function, method: Function
    ) -> None:
        here = METHODS[method.__name__](function, interval=(-3.0, 5.0), degree=degree)
        there = METHODS[method.__name__](
            lambda x: function((x - shift) / stretch),
            interval=(shift - 3.0 * stretch, shift + 5.0 * stretch),
            degree=degree,
        )
        np.testing.assert_allclose(there.coefficients, here.coefficients, atol=2e-6)

    @settings(max_examples=40, deadline=None)
    @given(interval=intervals, degree=st.integers(0, 12), seed=st.integers(0, 2**32 - 1))
    def test_sup_error_bounds_random_points(
        self, interval: tuple[float, float], degree: int, seed: int
    ) -> None:
        got = chebyshev(relu, interval=interval, degree=degree)
        x = np.random.default_rng(seed).uniform(*interval, 4_000)
        assert np.abs(relu(x) - got(x)).max() <= got.sup_error * (1 + 1e-9) + 1e-12

    @settings(max_examples=30, deadline=None)
    @given(interval=intervals, degree=st.integers(0, 12))
    def test_powers_agree_with_the_chebyshev_form(
        self, interval: tuple[float, float], degree: int
    ) -> None:
        got = chebyshev(silu, interval=interval, degree=degree)
        assert got.coefficients_power().shape == (degree + 1,)
        u = np.linspace(-1.0, 1.0, 101)
        power = np.polynomial.polynomial.polyval(u, got.coefficients_power())
        np.testing.assert_allclose(power, got(got.center + got.radius * u), atol=1e-8)

    @pytest.mark.parametrize("function", SMOOTH)
    def test_numerical_taylor_agrees_with_the_exact_series(self, function: Function) -> None:
        exact = taylor(function, interval=(-3.0, 4.0), degree=7, at=0.5)
        found = taylor(lambda x: function(x), interval=(-3.0, 4.0), degree=7, at=0.5)
        np.testing.assert_allclose(found.coefficients, exact.coefficients, rtol=1e-5, atol=1e-5)

    def test_cryptodl_weight_moves_the_error_to_the_kink(self) -> None:
        interval = (-10.0, 10.0)
        x = np.linspace(3.0, 10.0, 1_001)
        plain = chebyshev(relu, interval=interval, degree=6)
        modified = weighted_chebyshev(relu, interval=interval, degree=6)
        away = [float(np.mean((relu(x) - p(x)) ** 2)) for p in (plain, modified)]
        assert away[1] < away[0]


class TestRefusals:
    @pytest.mark.parametrize("method", sorted(METHODS))
    @pytest.mark.parametrize(
        ("interval", "degree"),
        [
            ((-1.0, 1.0), -1),
            ((-1.0, 1.0), 257),
            ((1.0, 1.0), 3),
            ((1.0, -1.0), 3),
            ((0.0, math.inf), 3),
            ((math.nan, 1.0), 3),
        ],
    )
    def test_nonsense(self, method: str, interval: tuple[float, float], degree: int) -> None:
        with pytest.raises(ApproximationError):
            METHODS[method](relu, interval=interval, degree=degree)

    @pytest.mark.parametrize("method", sorted(METHODS))
    def test_a_degree_that_is_no_integer(self, method: str) -> None:
        with pytest.raises(ApproximationError, match="integer degree"):
            METHODS[method](relu, interval=(-1.0, 1.0), degree=2.5)  # type: ignore[arg-type]

    @pytest.mark.parametrize("method", sorted(set(METHODS) - {"composite_minimax"}))
    @pytest.mark.parametrize(
        "function",
        [
            lambda x: np.where(x > 0.5, np.nan, x),
            lambda x: np.log(x - 0.5),
            lambda x: x[:2],
            lambda x: "text",
        ],
    )
    def test_bad_callables(self, method: str, function: Function) -> None:
        with pytest.raises(ApproximationError):
            METHODS[method](function, interval=(-1.0, 1.0), degree=3)

    def test_relu_has_no_taylor_series_at_zero(self) -> None:
        with pytest.raises(ApproximationError, match="softplus"):
            taylor(relu, interval=(-2.0, 3.0), degree=3)

    def test_an_expansion_point_outside(self) -> None:
        with pytest.raises(ApproximationError, match="expansion point"):
            taylor(sigmoid, interval=(-1.0, 1.0), degree=3, at=2.0)

    def test_a_weight_that_vanishes(self) -> None:
        with pytest.raises(ApproximationError, match="weight"):
            weighted_chebyshev(relu, interval=(-1.0, 1.0), degree=3, weight=np.zeros_like)
        with pytest.raises(ApproximationError, match="zero everywhere"):
            weighted_chebyshev(relu, interval=(-0.01, 0.01), degree=6)
        with pytest.raises(ApproximationError, match="undetermined"):
            weighted_chebyshev(relu, interval=(-0.06, 0.06), degree=24)

    def test_a_constant_has_no_derivative_to_fit(self) -> None:
        with pytest.raises(ApproximationError, match="degree from 1"):
            derivative_based(relu, interval=(-1.0, 1.0), degree=0)

    def test_composite_is_for_steep_functions(self) -> None:
        with pytest.raises(ApproximationError, match="use minimax"):
            composite_minimax(sigmoid, interval=(-1.0, 1.0), degree=10)

    @pytest.mark.parametrize(
        ("degrees", "gap"), [((), 0.1), ((4,), 0.1), ((33,), 0.1), ((3,), 0.0), ((3,), 1.0)]
    )
    def test_impossible_chains(self, degrees: tuple[int, ...], gap: float) -> None:
        with pytest.raises(ApproximationError):
            composite_sign(radius=1.0, degrees=degrees, gap=gap)

    def test_a_polynomial_without_coefficients(self) -> None:
        with pytest.raises(ApproximationError):
            Polynomial(coefficients=(), interval=(-1.0, 1.0), sup_error=0.0)
        with pytest.raises(ApproximationError):
            Polynomial(coefficients=(math.nan,), interval=(-1.0, 1.0), sup_error=0.0)


def test_composite_expansion_equals_the_chain() -> None:
    expanded = composite_minimax(sign, interval=(-4.0, 4.0), degree=9)
    chain = composite_sign(radius=4.0, degrees=(3, 3), gap=1 / 16)
    x = np.linspace(-4.0, 4.0, 201)
    np.testing.assert_allclose(expanded(x), chain(x), atol=1e-12)
