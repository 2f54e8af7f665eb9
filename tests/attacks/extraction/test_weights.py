"""Weights from quadratic forms, up to scale, sign and order."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from attacks.errors import AbilityError
from attacks.extraction.exact.quadratic_forms import Centering, QuadraticForms
from attacks.extraction.exact.square_layer import refine
from attacks.extraction.exact.weights import HiddenLayer, recover_weights
from tests.attacks.extraction.square_networks import random_layer
from tests.attacks.extraction.weight_match import match_weights

_UNIT = Centering(center=0.0, half_width=1.0)


def _forms(layer: HiddenLayer, centering: Centering = _UNIT) -> QuadraticForms:
    """The exact forms of a layer, from the definition, in centred coordinates."""
    rows = layer.weights * centering.half_width
    biases = layer.biases + layer.weights.sum(axis=1) * centering.center
    return QuadraticForms(
        forms=np.einsum("kh,hi,hj->kij", layer.outputs, rows, rows),
        linear=2 * (layer.outputs * biases) @ rows,
        constants=layer.constants + layer.outputs @ biases**2,
        centering=centering,
    )


@pytest.mark.parametrize(("features", "hidden", "classes"), [(5, 5, 2), (30, 20, 10), (9, 2, 3)])
def test_exact_forms_give_the_weights(features: int, hidden: int, classes: int) -> None:
    truth = random_layer(features, hidden, classes, np.random.default_rng(hidden))
    found = recover_weights(_forms(truth), np.random.default_rng(0))
    assert found.weights.shape == (hidden, features)
    match = match_weights(found, truth)
    assert max(match.worst_row, match.bias_errors.max(), match.output_errors.max()) < 1e-7
    inputs = np.random.default_rng(1).uniform(-1, 1, (100, features))
    assert np.allclose(found.scores(inputs), truth.scores(inputs), atol=1e-9)


def test_the_layer_comes_in_the_inputs_own_units() -> None:
    truth = random_layer(6, 4, 3, np.random.default_rng(2))
    forms = _forms(truth, Centering(center=2.5, half_width=0.5))
    inputs = np.random.default_rng(3).uniform(2, 3, (50, 6))
    assert np.allclose(forms.scores(inputs), truth.scores(inputs))
    found = recover_weights(forms, np.random.default_rng(4))
    assert np.allclose(found.scores(inputs), truth.scores(inputs))
    assert match_weights(found, truth).bias_errors.max() < 1e-8


def test_tiny_and_nearly_equal_channels() -> None:
    truth = random_layer(20, 8, 6, np.random.default_rng(5))
    outputs = truth.outputs.copy()
    outputs[:, 3] *= 1e-4  # tiny
    outputs[:, 5] = 1.7 * outputs[:, 6] * (1 + 1e-3 * np.arange(6))  # nearly the same ratios
    hard = HiddenLayer(
        weights=truth.weights,
        biases=truth.biases,
        outputs=outputs,
        remainder=truth.remainder,
        constants=truth.constants,
    )
    found = recover_weights(_forms(hard), np.random.default_rng(6))
    match = match_weights(found, hard)
    assert match.missing == 0
    assert match.worst_row < 1e-6


def test_refinement_undoes_a_disturbance() -> None:
    rng = np.random.default_rng(7)
    truth = random_layer(16, 8, 5, rng)
    z = rng.integers(-1, 2, (400, 16)).astype(np.float64)
    disturbed = truth.weights + 0.02 * rng.normal(size=truth.weights.shape)
    fit = refine(disturbed, z, truth.scores(z))
    assert fit.residual < 1e-9
    cosines = np.abs(
        np.sum(fit.rows * truth.weights, axis=1) / np.linalg.norm(truth.weights, axis=1)
    )
    assert np.allclose(cosines, 1, atol=1e-12)


def test_one_form_does_not_determine_weights() -> None:
    truth = random_layer(6, 4, 1, np.random.default_rng(8))
    with pytest.raises(AbilityError, match="two or more"):
        recover_weights(_forms(truth), np.random.default_rng(9))


def test_matching_undoes_scale_sign_and_order_and_sees_what_is_missing() -> None:
    rng = np.random.default_rng(10)
    truth = random_layer(7, 4, 3, rng)
    factors: NDArray[np.float64] = np.array([2.0, -0.5, -3.0, 1.0])
    order = np.array([2, 0, 3, 1])
    twin = HiddenLayer(
        weights=(truth.weights * factors[:, None])[order],
        biases=(truth.biases * factors)[order],
        outputs=(truth.outputs / factors**2)[:, order],
        remainder=truth.remainder,
        constants=truth.constants,
    )
    match = match_weights(twin, truth)
    assert max(match.worst_row, match.bias_errors.max(), match.output_errors.max()) < 1e-12
    assert np.array_equal(order[match.order], np.arange(4))
    fewer = HiddenLayer(
        weights=twin.weights[:3],
        biases=twin.biases[:3],
        outputs=twin.outputs[:, :3],
        remainder=twin.remainder,
        constants=twin.constants,
    )
    assert match_weights(fewer, truth).missing == 1
    other = match_weights(random_layer(7, 4, 3, rng), truth)
    assert other.worst_row > 0.1
