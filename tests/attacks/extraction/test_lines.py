"""Extraction of deeper networks of squares, and the polynomials it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from attacks.core.oracle import LABELS, PROBABILITIES
from attacks.errors import AbilityError, BudgetError, DataSplitError
from attacks.extraction.exact.lines import LineExtraction
from attacks.extraction.exact.peeling import PeeledNetwork
from attacks.extraction.exact.polynomials import fit_polynomials, line_derivatives, term_count
from tests.attacks.extraction.square_networks import Function, FunctionOracle, data_for


def _deep(widths: Sequence[int], seed: int) -> tuple[Function, list[NDArray[np.float64]]]:
    """A random network with squares between its layers, and its weight matrices.

    The last biases centre the logits: without that one class wins everywhere, and every guess
    would have perfect fidelity.
    """
    rng = np.random.default_rng(seed)
    layers = [
        (rng.normal(size=(after, before)) / before**0.5, 0.3 * rng.normal(size=after))
        for before, after in pairwise(widths)
    ]

    def function(inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        values = inputs
        for index, (weights, bias) in enumerate(layers):
            values = values @ weights.T + bias
            if index < len(layers) - 1:
                values = values * values
        return values

    layers[-1][1][:] -= function(rng.uniform(-1, 1, (4000, widths[0]))).mean(axis=0)
    return function, [weights for weights, _ in layers]


def _row_error(found: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """The largest distance of a true unit row from the nearest found one, up to sign."""
    first = found / np.linalg.norm(found, axis=1, keepdims=True)
    second = truth / np.linalg.norm(truth, axis=1, keepdims=True)
    nearest = np.abs(first @ second.T).argmax(axis=0)
    signs = np.sign(np.sum(first[nearest] * second, axis=1))
    return float(np.linalg.norm(first[nearest] * signs[:, None] - second, axis=1).max())


@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-4])
def test_a_network_of_degree_four_is_stolen_with_both_layers(noise: float) -> None:
    function, weights = _deep((8, 6, 5, 3), 0)
    data = data_for(function, features=8, classes=3)
    oracle = FunctionOracle(function, features=8, classes=3, noise=noise)
    result = LineExtraction(queries=800).run(oracle, data, np.random.default_rng(0))
    assert result.spent.records == 800
    assert result.metrics["degree"].value == 4
    assert result.metrics["rank"].value == 6
    assert result.metrics["layers_recovered"].value == 2
    assert result.figure.value == 1.0
    assert result.metrics["max_logit_error"].value < 1e-11 + 20 * noise
    assert isinstance(result.artifact, PeeledNetwork)
    assert _row_error(result.artifact.layers[0].weights, weights[0]) < 1e-9 + 20 * noise
    assert result.figure.value > result.baseline["fidelity_test"].value


@pytest.mark.slow
def test_degree_eight_peels_to_the_last_layer() -> None:
    function, weights = _deep((6, 4, 4, 4, 3), 0)
    data = data_for(function, features=6, classes=3)
    oracle = FunctionOracle(function, features=6, classes=3)
    result = LineExtraction(queries=2000).run(oracle, data, np.random.default_rng(0))
    assert result.metrics["degree"].value == 8
    assert result.metrics["layers_recovered"].value == 3
    assert result.metrics["max_logit_error"].value < 1e-10
    assert isinstance(result.artifact, PeeledNetwork)
    assert _row_error(result.artifact.layers[0].weights, weights[0]) < 1e-9


def test_probabilities_are_enough() -> None:
    function, _ = _deep((5, 3, 3, 3), 1)
    data = data_for(function, features=5, classes=3)
    oracle = FunctionOracle(
        function, features=5, classes=3, answers=frozenset({PROBABILITIES, LABELS})
    )
    result = LineExtraction(queries=500).run(oracle, data, np.random.default_rng(0))
    assert result.figure.value == 1.0
    assert result.metrics["max_logit_error"].value < 1e-9


def test_a_budget_in_between_gives_a_rougher_model_and_says_what_it_needs() -> None:
    function, _ = _deep((8, 6, 5, 3), 0)
    data = data_for(function, features=8, classes=3)
    oracle = FunctionOracle(function, features=8, classes=3)
    result = LineExtraction(queries=330).run(oracle, data, np.random.default_rng(0))
    assert result.spent.records == 330
    assert result.metrics["max_logit_error"].value > 1e-3
    assert any("needs 252 queries" in note for note in result.notes)


def test_noise_beyond_what_the_gradients_bear_is_reported() -> None:
    function, _ = _deep((8, 6, 5, 3), 1)
    data = data_for(function, features=8, classes=3)
    oracle = FunctionOracle(function, features=8, classes=3, noise=1e-2)
    result = LineExtraction(queries=800).run(oracle, data, np.random.default_rng(0))
    assert result.metrics["layers_recovered"].value == 0
    assert result.metrics["held_out_error"].value > 1e-3
    assert any("no layer recovered" in note for note in result.notes)


def test_refusals() -> None:
    function, _ = _deep((5, 3, 3), 2)
    data = data_for(function, features=5, classes=3)
    oracle = FunctionOracle(function, features=5, classes=3)
    minimum = LineExtraction(queries=10).minimum_queries(oracle.info)
    with pytest.raises(BudgetError, match=str(minimum)):
        LineExtraction(queries=10).run(oracle, data, np.random.default_rng(0))
    labels = FunctionOracle(function, features=5, classes=3, answers=frozenset({LABELS}))
    with pytest.raises(AbilityError):
        LineExtraction(queries=500).run(labels, data, np.random.default_rng(0))
    assert labels.ledger.spent.records == oracle.ledger.spent.records == 0
    with pytest.raises(DataSplitError):
        LineExtraction(queries=500, max_degree=0)


def test_polynomials_reproduce_values_gradients_and_hessians() -> None:
    def values(t: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y, z = t.T
        return np.stack([x**4 - 3 * y * z**2 + 1, (x + y) ** 2 * z], axis=1)

    points = np.random.default_rng(0).uniform(-1, 2, (100, 3))
    fitted, residual = fit_polynomials(points, values(points), 4)
    assert residual < 1e-11
    assert len(fitted.coefficients) == term_count(3, 4) == 35
    x, y, z = point = np.array([0.3, -0.2, 0.5])
    slopes = [[4 * x**3, -3 * z**2, -6 * y * z], [2 * (x + y) * z] * 2 + [(x + y) ** 2]]
    assert np.allclose(fitted.gradient(point), slopes)
    assert np.allclose(fitted.gradients(point[None])[0], slopes)
    first = [[12 * x**2, 0, 0], [0, 0, -6 * z], [0, -6 * z, -6 * y]]
    assert np.allclose(fitted.hessian(point)[0], first)


def test_derivatives_along_lines_are_exact_for_the_degree() -> None:
    positions = np.array([0.0, 0.5, -0.5, 0.25, 1.0])
    coefficients = np.array([2.0, -3.0, 1.0, 0.5, 4.0])
    values = np.polynomial.polynomial.polyval(positions, coefficients)[None, :, None]
    assert line_derivatives(values, positions) == pytest.approx(-3.0)
