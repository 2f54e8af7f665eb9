"""Extraction behind scaling, shift and noise: ratios, and networks matched to what is left."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from attacks.core.wrappers import LabelsOnly, Noisy, Scaled, Shifted, Softmax
from attacks.errors import AbilityError, BudgetError, DataSplitError
from attacks.extraction.exact.concealed import Concealment, contrasts, inverse_factors
from attacks.extraction.exact.matching import NetworkMatching
from attacks.extraction.exact.quadratic import QuadraticExtraction
from attacks.extraction.exact.quadratic_forms import quadratic_features
from attacks.extraction.exact.ratios import RatioExtraction
from tests.attacks.extraction.square_networks import FunctionOracle, data_for, random_layer

Array = NDArray[np.float64]
D, H, C = 10, 4, 5  # 66 coefficients a form; 4 · (10 + 1 + 5) + 5 = 69 unknowns of the network
LAYER = random_layer(D, H, C, np.random.default_rng(0))
DATA = data_for(LAYER.scores, features=D, classes=C)


def served(*, noise: float = 0.0, seed: int = 1) -> Shifted:
    rng = np.random.default_rng(seed)
    oracle = FunctionOracle(LAYER.scores, features=D, classes=C, noise=noise)
    return Shifted(Scaled(oracle, spread=2.0, rng=rng), radius=8.0, rng=rng)


def test_contrasts_are_orthonormal_and_see_no_shift() -> None:
    for classes in (2, 3, 10):
        columns = contrasts(classes)
        np.testing.assert_allclose(columns.T @ columns, np.eye(classes - 1), atol=1e-12)
        np.testing.assert_allclose(columns.sum(axis=0), 0, atol=1e-12)
    concealment = Concealment(scaled=True, shifted=True)
    scores = np.random.default_rng(0).normal(size=(4, 5))
    seen = concealment.coordinates(scores)
    np.testing.assert_allclose(concealment.coordinates(scores + 3.0), seen, atol=1e-12)
    centred = scores - scores.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(concealment.scores(seen, 5), centred, atol=1e-12)


def naive_inverse_factors(z: Array, seen: Array) -> Array:
    """The same null vector from the whole system: unknown coefficients and inverse factors."""
    features = quadratic_features(z)
    records, outputs = seen.shape
    width = features.shape[1]
    system = np.zeros((records * outputs, records + outputs * width))
    for k in range(outputs):
        rows = slice(k * records, (k + 1) * records)
        system[rows, :records] = np.diag(seen[:, k])
        system[rows, records + k * width : records + (k + 1) * width] = -features
    vector = np.linalg.svd(system)[2][-1, :records]
    return np.asarray(vector / np.linalg.norm(vector) * np.sign(vector.sum()))


def test_inverse_factors_are_the_null_vector_of_the_whole_system() -> None:
    rng = np.random.default_rng(2)
    z = rng.integers(-1, 2, (30, 4)).astype(float)
    truth = quadratic_features(z) @ rng.normal(size=(15, 4))
    factors = 2.0 ** rng.uniform(-1, 1, (30, 1))
    found = inverse_factors(z, factors * truth)[:, 0]
    np.testing.assert_allclose(found, naive_inverse_factors(z, factors * truth), atol=1e-6)
    product = found * factors[:, 0]
    np.testing.assert_allclose(product, product.mean(), rtol=1e-6)


def test_ratios_give_the_network_that_least_squares_misses() -> None:
    attack = RatioExtraction(queries=180)
    result = attack.run(served(), DATA, np.random.default_rng(3))
    assert result.metrics["fidelity_test"].value == result.metrics["fidelity_uniform"].value == 1
    assert result.metrics["held_out_error"].value < 1e-5
    assert result.spent.records == 180
    naive = QuadraticExtraction(queries=180).run(served(), DATA, np.random.default_rng(3))
    assert naive.metrics["fidelity_uniform"].high < 0.95


@pytest.mark.parametrize(("scaled", "shifted"), [(True, False), (False, True), (False, False)])
def test_each_part_alone_takes_its_own_adversary(scaled: bool, shifted: bool) -> None:
    rng = np.random.default_rng(4)
    oracle: object = FunctionOracle(LAYER.scores, features=D, classes=C)
    if scaled:
        oracle = Scaled(oracle, spread=2.0, rng=rng)  # type: ignore[arg-type]
    if shifted:
        oracle = Shifted(oracle, radius=8.0, rng=rng)  # type: ignore[arg-type]
    concealment = Concealment(scaled=scaled, shifted=shifted)
    for attack in (
        RatioExtraction(queries=180, concealment=concealment),
        NetworkMatching(queries=120, channels=H, concealment=concealment, iterations=400),
    ):
        result = attack.run(oracle, DATA, np.random.default_rng(5))  # type: ignore[arg-type]
        assert result.metrics["fidelity_uniform"].value > 0.995


def test_matching_needs_fewer_records_than_there_are_coefficients() -> None:
    attack = NetworkMatching(queries=64, channels=H, held_out=8, starts=4, iterations=500)
    oracle = FunctionOracle(LAYER.scores, features=D, classes=C)
    result = attack.run(oracle, DATA, np.random.default_rng(6))
    assert result.spent.records == 64 < (D + 1) * (D + 2) // 2
    assert result.metrics["fidelity_uniform"].value > 0.99
    assert result.metrics["held_out_error"].value < 0.01


def test_more_records_average_noise_away() -> None:
    def disagreement(queries: int) -> float:
        attack = RatioExtraction(queries=queries)
        result = attack.run(served(noise=0.1), DATA, np.random.default_rng(7))
        return 1 - result.metrics["fidelity_uniform"].value

    few, many = disagreement(300), disagreement(2400)
    assert many < 0.6 * few


@pytest.mark.slow
def test_answers_that_overflowed_are_left_out() -> None:
    sample = LAYER.scores(np.random.default_rng(6).integers(-1, 2, (2000, D)).astype(float))
    reach = float(np.quantile(np.abs(sample).max(axis=1), 0.97))

    def wrapped(inputs: Array) -> Array:
        """Scores as a small modulus leaves those of the widest records."""
        return np.asarray((LAYER.scores(inputs) + reach) % (2 * reach) - reach)

    oracle = FunctionOracle(wrapped, features=D, classes=C)
    rng = np.random.default_rng(5)
    result = NetworkMatching(queries=300, channels=H, starts=2).run(oracle, DATA, rng)
    assert result.metrics["fidelity_uniform"].value == 1


def test_probabilities_are_logits_under_a_shift() -> None:
    oracle = Softmax(FunctionOracle(LAYER.scores, features=D, classes=C))
    told = Concealment(scaled=False, shifted=True)
    result = RatioExtraction(queries=180, concealment=told).run(
        oracle, DATA, np.random.default_rng(8)
    )
    assert result.metrics["fidelity_uniform"].value > 0.99


def test_what_cannot_work_is_refused_before_anything_is_asked() -> None:
    oracle = served()
    rng = np.random.default_rng(0)
    for attack in (RatioExtraction(queries=60), NetworkMatching(queries=60, channels=64)):
        with pytest.raises(BudgetError, match="needs at least"):
            attack.run(oracle, DATA, rng)
        with pytest.raises(AbilityError):
            attack.run(LabelsOnly(oracle), DATA, rng)
    two = FunctionOracle(lambda x: LAYER.scores(x)[:, :2], features=D, classes=2)
    data = data_for(lambda x: LAYER.scores(x)[:, :2], features=D, classes=2)
    told = Concealment(scaled=True, shifted=True)
    for build in (RatioExtraction, NetworkMatching):
        with pytest.raises(DataSplitError, match="no ratio"):
            build(queries=900, concealment=told).run(two, data, rng)
    assert oracle.ledger.spent.records == two.ledger.spent.records == 0
    with pytest.raises(DataSplitError):
        Concealment(scaled=True, shifted=True, spread=1.0)
    with pytest.raises(DataSplitError):
        NetworkMatching(queries=900, starts=0)
    with pytest.raises(DataSplitError):
        RatioExtraction(queries=900, held_out=2)


def test_noise_around_the_service_is_part_of_the_answer() -> None:
    quiet = served()
    loud = Noisy(quiet, scale=0.5, rng=np.random.default_rng(0))
    assert quiet.info.version in loud.info.version
