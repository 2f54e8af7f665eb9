"""Exact extraction of networks with one layer of squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import he_infer
from attacks.core.oracle import LABELS, LOGITS, PROBABILITIES
from attacks.core.records import Records
from attacks.errors import AbilityError, BudgetError, DataSplitError
from attacks.extraction.exact.quadratic import QuadraticExtraction
from attacks.extraction.exact.quadratic_forms import Centering
from attacks.extraction.exact.weights import HiddenLayer
from attacks.extraction.setting import ExtractionData
from attacks.oracles.plaintext import TorchOracle
from attacks.oracles.remote import serve
from he_infer import zoo
from tests.attacks.extraction.square_networks import FunctionOracle, data_for, random_layer
from tests.attacks.extraction.weight_match import match_weights


def test_small_network_is_stolen_exactly_in_one_request() -> None:
    truth = random_layer(12, 6, 4, np.random.default_rng(1))
    data = data_for(truth.scores, features=12, classes=4)
    oracle = FunctionOracle(truth.scores, features=12, classes=4)
    attack = QuadraticExtraction(queries=180, held_out=16)
    result = attack.run(oracle, data, np.random.default_rng(2))
    assert result.figure.value == 1.0
    assert result.metrics["max_logit_error"].value < 1e-11
    assert result.metrics["rank"].value == 6
    assert (result.spent.records, result.spent.requests) == (180, 1)
    assert result.figure.value > result.baseline["fidelity_test"].value + 0.3
    assert isinstance(result.artifact, HiddenLayer)
    match = match_weights(result.artifact, truth)
    assert match.missing == 0
    assert max(match.worst_row, match.bias_errors.max(), match.output_errors.max()) < 1e-9
    curve = result.curves["fidelity"]
    assert curve.x == (11.0, 22.0, 45.0, 90.0, 180.0)
    assert curve.y[-1] == 1.0 > curve.y[0]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 5.0)])
def test_queries_stay_in_the_interval_and_weights_come_in_its_units(
    low: float, high: float
) -> None:
    truth = random_layer(10, 5, 3, np.random.default_rng(3))
    data = data_for(truth.scores, features=10, classes=3, low=low, high=high)
    oracle = FunctionOracle(truth.scores, features=10, classes=3, low=low, high=high)
    result = QuadraticExtraction(queries=160).run(oracle, data, np.random.default_rng(4))
    assert result.metrics["max_logit_error"].value < 1e-10
    assert isinstance(result.artifact, HiddenLayer)
    match = match_weights(result.artifact, truth)
    assert max(match.worst_row, match.bias_errors.max()) < 1e-9


def test_structure_beats_plain_least_squares_under_noise() -> None:
    truth = random_layer(24, 6, 5, np.random.default_rng(5))
    data = data_for(truth.scores, features=24, classes=5)
    attack = QuadraticExtraction(queries=500)
    oracle = FunctionOracle(truth.scores, features=24, classes=5, noise=1e-2)
    rng = np.random.default_rng(6)
    z, scores = attack.ask(oracle, rng)
    fits = attack.steal(z, scores, Centering.of(oracle.info), rng)
    assert fits.rank == 6
    assert fits.noise == pytest.approx(1e-2, rel=0.15)
    inputs = data.test.inputs
    clean = truth.scores(inputs)

    def error(scores: np.ndarray) -> float:
        return float(np.sqrt(np.mean((scores - clean) ** 2)))

    assert fits.projected is not None and fits.layer is not None
    raw, projected = error(fits.forms.scores(inputs)), error(fits.projected.scores(inputs))
    layer = error(fits.layer.scores(inputs))
    # 325, 46 and 31 unknowns per score, and 500 - 64 answers: errors go with their roots.
    assert layer < projected < 0.7 * raw
    assert match_weights(fits.layer, truth).worst_row < 0.02


def test_probabilities_are_enough_up_to_a_constant() -> None:
    truth = random_layer(8, 4, 4, np.random.default_rng(7))
    data = data_for(truth.scores, features=8, classes=4)
    oracle = FunctionOracle(
        truth.scores, features=8, classes=4, answers=frozenset({PROBABILITIES, LABELS})
    )
    result = QuadraticExtraction(queries=150).run(oracle, data, np.random.default_rng(8))
    assert result.figure.value == 1.0
    assert result.metrics["max_logit_error"].value < 1e-10
    assert "up to a constant" in result.metrics["max_logit_error"].method


def test_more_channels_than_features_give_the_function_without_weights() -> None:
    truth = random_layer(4, 10, 3, np.random.default_rng(9))
    data = data_for(truth.scores, features=4, classes=3)
    oracle = FunctionOracle(truth.scores, features=4, classes=3)
    attack = QuadraticExtraction(queries=82)
    assert attack.minimum_queries(oracle.info) == 82
    result = attack.run(oracle, data, np.random.default_rng(10))
    assert result.metrics["max_logit_error"].value < 1e-11
    assert result.metrics["channels_recovered"].value == 0
    assert any("not the weights" in note for note in result.notes)


def test_a_single_score_gives_the_function_without_weights() -> None:
    layer = random_layer(6, 3, 1, np.random.default_rng(11))

    def binary(inputs: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros((len(inputs), 1)), layer.scores(inputs)], axis=1)

    data = data_for(binary, features=6, classes=2)
    oracle = FunctionOracle(binary, features=6, classes=2)
    result = QuadraticExtraction(queries=120).run(oracle, data, np.random.default_rng(12))
    assert result.metrics["max_logit_error"].value < 1e-11
    assert result.metrics["channels_recovered"].value == 0


def test_a_relu_network_is_reported_as_not_quadratic() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 3)).double()
    oracle = TorchOracle(model, name="relu", input_shape=(10,), low=-1.0, high=1.0)
    function = lambda inputs: oracle.query(inputs).require_logits()  # noqa: E731
    data = data_for(function, features=10, classes=3)
    result = QuadraticExtraction(queries=200).run(oracle, data, np.random.default_rng(13))
    assert result.metrics["held_out_error"].value > 0.05
    assert result.metrics["max_logit_error"].value > 1e-3
    assert any("not a quadratic" in note for note in result.notes)


def test_too_small_a_budget_names_the_minimum_and_spends_nothing() -> None:
    truth = random_layer(12, 6, 4, np.random.default_rng(14))
    data = data_for(truth.scores, features=12, classes=4)
    oracle = FunctionOracle(truth.scores, features=12, classes=4)
    attack = QuadraticExtraction(queries=100)
    with pytest.raises(BudgetError, match=str(attack.minimum_queries(oracle.info))):
        attack.run(oracle, data, np.random.default_rng(15))
    assert oracle.ledger.spent.records == 0


def test_labels_are_not_enough_and_cost_nothing() -> None:
    truth = random_layer(6, 3, 3, np.random.default_rng(16))
    data = data_for(truth.scores, features=6, classes=3)
    oracle = FunctionOracle(truth.scores, features=6, classes=3, answers=frozenset({LABELS}))
    with pytest.raises(AbilityError):
        QuadraticExtraction(queries=200).run(oracle, data, np.random.default_rng(17))
    assert oracle.ledger.spent.records == 0


def test_bad_settings_are_refused() -> None:
    with pytest.raises(DataSplitError):
        QuadraticExtraction(held_out=2)
    with pytest.raises(DataSplitError):
        QuadraticExtraction(records_per_request=0)


def test_requests_can_be_split() -> None:
    truth = random_layer(6, 3, 3, np.random.default_rng(18))
    data = data_for(truth.scores, features=6, classes=3)
    oracle = FunctionOracle(
        truth.scores, features=6, classes=3, answers=frozenset({LOGITS, LABELS})
    )
    attack = QuadraticExtraction(queries=130, records_per_request=50)
    result = attack.run(oracle, data, np.random.default_rng(19))
    assert result.spent.requests == 3
    assert result.figure.value == 1.0


def _digits() -> tuple[nn.Module, ExtractionData, HiddenLayer]:
    model = zoo.load("digits-mlp")
    held = zoo.test_set("digits-mlp")
    test = Records(inputs=zoo.inputs("digits-mlp", held).astype(np.float64), labels=held.labels)
    reference = TorchOracle(model, name="digits-mlp", input_shape=(64,), low=0.0, high=1.0)
    data = ExtractionData(
        seeds=test.select(slice(0, 0)), pool=test.inputs[:0], test=test, reference=reference
    )
    state = {name: value.double().numpy() for name, value in model.state_dict().items()}
    gain = state["norm1.weight"] / np.sqrt(state["norm1.running_var"] + 1e-5)
    radius = state["act1.radius"]
    constant, slope, square = state["act1.coefficients"].T
    weights = state["dense1.weight"] * (gain / radius)[:, None]
    bias = state["norm1.bias"] - gain * state["norm1.running_mean"] - state["act1.center"]
    outputs = state["dense2.weight"]
    truth = HiddenLayer(
        weights=weights,
        biases=bias / radius + slope / (2 * square),
        outputs=outputs * square,
        remainder=np.zeros((10, 64)),
        constants=state["dense2.bias"] + outputs @ (constant - slope**2 / (4 * square)),
    )
    return model, data, truth


@pytest.mark.slow
def test_the_trained_digits_network_is_stolen_over_the_encrypted_service() -> None:
    model, data, truth = _digits()
    inputs = data.test.inputs
    assert np.allclose(truth.scores(inputs), data.reference.query(inputs).require_logits())
    plan = he_infer.compile(model, zoo.sample("digits-mlp", 1024), batch=4096, name="digits-mlp")
    with serve(plan, low=0.0, high=1.0) as oracle:
        result = QuadraticExtraction(queries=3000).run(oracle, data, np.random.default_rng(0))
    assert (result.spent.records, result.spent.requests) == (3000, 1)
    assert result.spent.bytes_sent > 0
    # All 359 test records; of 10,000 uniform inputs at most the few that lie on a border.
    assert result.metrics["fidelity_test"].value == 1.0
    assert result.metrics["fidelity_uniform"].value >= 0.999
    assert result.metrics["max_logit_error"].value < 1e-3
    assert result.seconds < 600  # seconds on a machine of its own
    assert isinstance(result.artifact, HiddenLayer)
    match = match_weights(result.artifact, truth)
    assert match.missing == 0
    assert max(match.worst_row, match.output_errors.max()) < 1e-3
