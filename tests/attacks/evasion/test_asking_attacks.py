"""Square, HopSkipJump, the ensemble and transfer: what they reach, and what they ask for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from attacks.core.oracle import Oracle
from attacks.core.records import Records
from attacks.core.result import AttackResult
from attacks.core.wrappers import LabelsOnly, Noisy, Softmax
from attacks.errors import AbilityError, BudgetError, DataSplitError
from attacks.evasion.asking import Asker
from attacks.evasion.black_box.hopskipjump import HopSkipJump
from attacks.evasion.black_box.square import Square
from attacks.evasion.black_box.stolen import as_network
from attacks.evasion.black_box.transfer import Transfer
from attacks.evasion.black_box.windows import Windows, grid_of, pattern, share_at, sides
from attacks.evasion.ensemble import EvasionEnsemble
from attacks.evasion.gradient.apgd import APGD
from attacks.evasion.gradient.pgd import PGD
from attacks.evasion.norms import L2, Linf, Norm
from attacks.evasion.setting import EvasionData
from attacks.extraction.exact.quadratic import QuadraticExtraction
from attacks.extraction.exact.quadratic_forms import Centering, fit_forms
from attacks.extraction.learners import ConstantModel, PerceptronLearner
from attacks.extraction.papernot import PapernotSubstitute
from attacks.extraction.setting import ExtractionData
from attacks.extraction.substitute import Substitute, SubstituteTraining
from attacks.oracles.plaintext import TorchOracle
from he_infer import zoo
from tests.attacks.evasion.flat_models import digits, digits_oracle, linear, oracle_of
from tests.attacks.extraction.square_networks import data_for, random_layer

BOTH = pytest.mark.parametrize("norm", [Linf(), L2()], ids=["Linf", "L2"])


def _run(attack: Any, data: EvasionData, oracle: Oracle | None = None) -> AttackResult:
    target = digits_oracle() if oracle is None else oracle
    result: AttackResult = attack.run(target, data, np.random.default_rng(0))
    return result


@BOTH
@pytest.mark.parametrize("attack", [Square(queries=150), HopSkipJump(queries=600, around=40)])
def test_asking_reaches_much_and_stays_in_the_ball(attack: Any, norm: Norm) -> None:
    epsilon = 0.12 if norm.name == "Linf" else 0.6
    data = digits(60, epsilon=epsilon, norm=norm)
    result = _run(attack, data)
    assert result.artifact.sizes.max() <= epsilon * (1 + 1e-9)
    assert result.artifact.moved.min() >= 0 and result.artifact.moved.max() <= 1
    assert result.figure.low > result.baseline["success"].high
    assert result.figure.value > 0.3
    assert result.figure.value <= _run(APGD(steps=50), data).figure.high
    assert result.threat_model == "malicious client"


@BOTH
@pytest.mark.parametrize("attack", [Square(queries=50), HopSkipJump(queries=300, around=40)])
def test_no_record_is_asked_more_often_than_allowed(attack: Any, norm: Norm) -> None:
    epsilon = 0.02 if norm.name == "Linf" else 0.05  # nothing falls early
    data, oracle = digits(20, epsilon=epsilon, norm=norm), digits_oracle()
    result = _run(attack, data, oracle)
    alive = int(result.artifact.right.sum())
    assert 20 + alive < result.spent.records <= 20 + alive * (attack.queries + 1)
    # All records travel together: far fewer requests than records asked about.
    assert oracle.ledger.spent.requests < result.spent.records / 10


def test_hopskipjump_needs_labels_only_and_finds_the_distance_to_a_plane() -> None:
    """Of a linear model the nearest wrong point is known: |margin| over the dual norm."""
    weights = np.array([1.0, -2.0, 0.5, 0.0])
    model = linear([(-weights).tolist(), weights.tolist()], [0.0, 0.0])
    rng = np.random.default_rng(1)
    inputs = rng.uniform(0.3, 0.7, (40, 4))
    labels = (inputs @ weights > 0).astype(np.int64)
    data = EvasionData(
        records=Records(inputs=inputs, labels=labels), low=0.0, high=1.0, epsilon=1e-6, norm=L2()
    )
    result = _run(HopSkipJump(queries=1500), data, LabelsOnly(oracle_of(model, (4,))))
    nearest = np.median(np.abs(inputs @ weights) / np.linalg.norm(weights))
    assert result.metrics["median_size"].value == pytest.approx(nearest, rel=0.1)
    assert result.figure.value == 0.0  # found, but further away than epsilon


def test_scores_are_needed_by_square_and_probabilities_do() -> None:
    data = digits(10)
    with pytest.raises(AbilityError, match="needs logits or probabilities"):
        _run(Square(), data, LabelsOnly(digits_oracle()))
    logits, probabilities = (
        _run(Square(queries=40), data, oracle).artifact.fooled
        for oracle in (digits_oracle(), Softmax(digits_oracle()))
    )
    assert np.array_equal(logits, probabilities)


def test_too_small_a_budget_is_refused_before_anything_is_asked() -> None:
    oracle = digits_oracle()
    with pytest.raises(BudgetError, match="at least"):
        _run(HopSkipJump(queries=10), digits(5), oracle)
    with pytest.raises(BudgetError, match="at least"):
        _run(Square(queries=0), digits(5), oracle)
    assert oracle.ledger.spent.records == 0


def test_square_is_towards_wanted_classes_too() -> None:
    data = digits(30, epsilon=0.12)
    aimed = dataclasses.replace(data, wanted=(data.records.labels + 1) % 10)
    result = _run(Square(queries=200), aimed)
    assert 0 < result.figure.value < _run(Square(queries=200), data).figure.value


def test_noise_costs_an_attack_that_asks_once_and_averaging_wins_it_back() -> None:
    data = digits(60, epsilon=0.12)

    def reached(repeats: int) -> float:
        oracle = Noisy(digits_oracle(), scale=0.3, rng=np.random.default_rng(5))
        moved = _run(Square(queries=120, repeats=repeats), data, oracle).artifact
        # Judged without noise: of what the adversary holds, what really is wrong.
        labels = digits_oracle().query(moved.moved).labels
        return float((labels != data.records.labels)[moved.right].mean())

    assert reached(16) > reached(1) + 0.1


def test_labels_under_noise_go_to_the_vote() -> None:
    inputs = digits(30).inputs()
    clear = digits_oracle().query(inputs.numpy()).labels

    def wrong(repeats: int) -> int:
        noisy = Noisy(digits_oracle(), scale=6.0, rng=np.random.default_rng(1))
        found = Asker(oracle=noisy, repeats=repeats).labels(inputs).numpy()
        return int((found != clear).sum())

    assert wrong(31) < wrong(1)
    with pytest.raises(DataSplitError, match="at least once"):
        Asker(oracle=digits_oracle(), repeats=0)


def test_the_ensemble_is_at_least_as_strong_as_its_parts() -> None:
    data = digits(150, epsilon=0.08)
    whole = _run(EvasionEnsemble(steps=20, queries=100), data)
    for part in (APGD(steps=20), APGD.of_ratios(steps=20), Square(queries=100)):
        assert whole.figure.value >= _run(part, data).figure.value - 1e-9
    left = [whole.metrics[f"after_{name}"].value for name in ("apgd_ce", "apgd_dlr", "wanted")]
    assert left == sorted(left, reverse=True)
    assert whole.metrics["after_square"].value == pytest.approx(
        (1 - whole.figure.value) * whole.figure.count
    )


def test_the_ensemble_leaves_ratios_out_where_there_are_two_classes() -> None:
    model = linear([[-1.0, 2.0], [1.0, -2.0]], [0.0, 0.0])
    inputs = np.random.default_rng(0).uniform(0.4, 0.6, (50, 2))
    labels = (inputs @ np.array([1.0, -2.0]) > 0).astype(np.int64)
    data = EvasionData(
        records=Records(inputs=inputs, labels=labels), low=0.0, high=1.0, epsilon=0.05, model=model
    )
    result = _run(EvasionEnsemble(steps=10, queries=10), data, oracle_of(model, (2,)))
    assert any("2 classes" in note for note in result.notes)
    assert "after_apgd_dlr" not in result.metrics


def _stealing() -> ExtractionData:
    held = zoo.test_set("digits-mlp")
    inputs = zoo.inputs("digits-mlp", held).astype(np.float64)
    records = Records(inputs=inputs, labels=held.labels.astype(np.int64))
    return ExtractionData(
        seeds=records.select(slice(100, 200)),
        pool=inputs[100:],
        test=records.select(slice(0, 100)),
        reference=digits_oracle(),
    )


def test_what_transfers_from_a_substitute_is_less_than_from_the_weights() -> None:
    data = dataclasses.replace(digits(80, epsilon=0.2), stealing=_stealing(), model=None)
    extraction = PapernotSubstitute(queries=800, training=SubstituteTraining(epochs=10))
    result = _run(Transfer(extraction=extraction), data, LabelsOnly(digits_oracle()))
    assert result.spent.records == 80 + 800 + int(result.artifact.right.sum())
    assert result.figure.low > result.baseline["success"].high
    assert result.figure.value < _run(PGD(), digits(80, epsilon=0.2)).figure.value
    assert result.threat_model == "malicious client"
    with pytest.raises(AbilityError, match="steals a substitute"):
        _run(Transfer(), digits(5))


def test_an_exact_extraction_transfers_as_the_weights_themselves_do() -> None:
    layer = random_layer(6, 4, 3, np.random.default_rng(3))
    model = as_network(layer)
    target = TorchOracle(model, name="squares", input_shape=(6,), low=-1.0, high=1.0)
    stealing = data_for(layer.scores, features=6, classes=3)
    held = EvasionData(
        records=stealing.test.select(slice(0, 150)), low=-1.0, high=1.0, epsilon=0.1, model=model
    )
    asked = dataclasses.replace(held, model=None, stealing=stealing)
    stolen = _run(Transfer(extraction=QuadraticExtraction(queries=200)), asked, target)
    assert stolen.metrics["fidelity_test"].value == 1.0
    # The starts are other ones, so a record at the border may differ.
    differ = stolen.artifact.fooled != _run(PGD(), held, target).artifact.fooled
    assert differ.mean() < 0.02


def test_stolen_models_are_networks_with_the_same_scores() -> None:
    rng = np.random.default_rng(0)
    layer = random_layer(6, 4, 3, rng)
    inputs = rng.uniform(-1, 1, (20, 6))
    info = digits_oracle().info
    design = rng.uniform(-1, 1, (200, 6))
    forms = fit_forms(design, layer.scores(design), Centering(center=0.0, half_width=1.0))
    labels = layer.scores(inputs).argmax(axis=1).astype(np.int64)
    perceptron = PerceptronLearner(hidden=(5,)).fit(Records(inputs=inputs, labels=labels), 3, rng)
    substitute = Substitute(module=torch.nn.Linear(6, 3), low=info.low, high=info.high)
    for stolen in (layer, forms, perceptron, substitute):
        found = as_network(stolen)(torch.from_numpy(inputs)).detach().numpy()
        assert np.allclose(found, stolen.scores(inputs), atol=1e-5)
    with pytest.raises(AbilityError, match="ConstantModel has no gradient"):
        as_network(ConstantModel(label=0, classes=3))


def test_windows_lie_in_the_grid_and_shrink_on_schedule() -> None:
    assert grid_of((3, 4, 5)) == (3, 4, 5)
    assert (
        grid_of((64,)) == (1, 8, 8)
        and grid_of((30,)) == (1, 1, 30)
        and grid_of((4, 5)) == (1, 4, 5)
    )
    shares = [share_at(query, 10_000, 0.8) for query in (0, 11, 51, 8001)]
    assert shares == [0.8, 0.4, 0.2, 0.8 / 512]
    assert share_at(5, 100, 0.8) == share_at(500, 10_000, 0.8)
    assert sides(0.25, 28, 28) == (14, 14) and sides(1e-9, 28, 28) == (1, 1)
    assert sides(0.5, 1, 30) == (1, 15)
    stream = torch.Generator().manual_seed(0)
    windows = Windows.random(500, (2, 6, 7), (3, 2), stream)
    masks = windows.mask((2, 6, 7))
    assert (masks.sum(dim=(1, 2, 3)) == 6).all()
    assert masks.any(dim=0).all()
    grid = torch.arange(2 * 6 * 7).reshape(1, 2, 6, 7).expand(500, 2, 6, 7)
    taken = grid[windows.index(2)].flatten(1).sort(dim=1).values
    inside = grid[masks.expand(500, 2, 6, 7)].reshape(500, -1).sort(dim=1).values
    assert torch.equal(taken, inside)


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (5, 5), (1, 7), (4, 2)])
def test_a_pattern_has_length_one(shape: tuple[int, int]) -> None:
    found = pattern(*shape)
    assert found.shape == shape and found.square().sum().item() == pytest.approx(1.0)
