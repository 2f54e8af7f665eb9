"""Serving defences: wrappers that draw what plans draw, noise that costs what it may."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from attacks.catalogue import ATTACKS
from attacks.core.oracle import softmax
from attacks.core.wrappers import LabelsOnly, Scaled, Shifted, Softmax
from attacks.defences.serving import calibrated_noise, serving_defences
from attacks.errors import AbilityError, DataSplitError, TooFewRecordsError
from attacks.oracles.plaintext import TorchOracle
from attacks.oracles.simulated import SimulatedOracle
from he_infer import zoo
from he_infer.cli.main import build_parser
from he_infer.compiler.pipeline import compile
from he_infer.plan.privacy import FunctionPrivacy

NAME = "digits-mlp"
SERVING = serving_defences()


def target() -> TorchOracle:
    return TorchOracle(zoo.load(NAME), name=NAME, input_shape=(64,), low=0.0, high=1.0)


def records(count: int) -> NDArray[np.float64]:
    return np.asarray(zoo.sample(NAME, count), dtype=np.float64)


@pytest.mark.parametrize("name", SERVING)
def test_labels_are_kept_where_that_is_said_and_answers_differ_each_time(name: str) -> None:
    defence, bare = SERVING[name], target()
    oracle = defence.wrap(bare, np.random.default_rng(0))
    inputs = records(200)
    first, second = oracle.query(inputs), oracle.query(inputs)
    exact = target().query(inputs)
    uniform = np.random.default_rng(1).uniform(0, 1, (400, 64))  # margins are small there
    kept = oracle.query(uniform).labels == target().query(uniform).labels
    assert defence.keeps_labels == bool(kept.all())
    assert not defence.keeps_labels or (first.labels == exact.labels).all()
    assert np.abs(first.require_logits() - second.require_logits()).max() > 0.1
    assert bare.ledger.spent.records == 800
    assert oracle.info.version != bare.info.version
    assert first.slots is None


@pytest.mark.parametrize("name", SERVING)
def test_every_defence_names_attacks_and_options_that_exist(name: str) -> None:
    defence = SERVING[name]
    assert defence.name == name and defence.title and defence.cost
    assert defence.adaptive and set(defence.adaptive) <= ATTACKS.keys()
    options = build_parser().parse_args(["compile", "--model", NAME, *defence.options])
    assert options.noise_std or options.shift or options.scaling > 1


def test_wrappers_draw_what_plans_draw() -> None:
    strengths = {"scaling": 2.0, "shift": 8.0, "noise_std": 0.3}
    plan = compile(
        zoo.load(NAME),
        zoo.sample(NAME, 256),
        name=NAME,
        batch=256,
        privacy=FunctionPrivacy.for_precision(10, **strengths),
    )
    inputs = records(512)
    simulated = SimulatedOracle(plan, rng=np.random.default_rng(1), low=0.0, high=1.0)
    wrapped = serving_defences(noise_std=0.3)["scaling+shift+noise"].wrap(
        target(), np.random.default_rng(2)
    )
    exact = target().query(inputs).require_logits()
    parts = []
    for oracle in (simulated, wrapped):
        logits = oracle.query(inputs).require_logits()
        shifts = logits.mean(axis=1)
        centred, wanted = (x - x.mean(axis=1, keepdims=True) for x in (logits, exact))
        factors = (centred * wanted).sum(axis=1) / (wanted**2).sum(axis=1)
        rest = centred - factors[:, None] * wanted
        parts.append((factors, shifts, rest[:, 0]))
    for ours, theirs in zip(*parts, strict=True):
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-3


def test_probabilities_of_scaled_and_shifted_logits() -> None:
    inputs = records(20)
    exact = target().query(inputs).require_logits()
    rng = np.random.default_rng(3)
    got = Scaled(Softmax(target()), spread=2.0, rng=rng).query(inputs).require_probabilities()
    factors = 2.0 ** np.random.default_rng(3).uniform(-1, 1, (20, 1))
    np.testing.assert_allclose(got, softmax(exact * factors), atol=1e-12)


def test_noise_costs_the_accuracy_that_was_allowed() -> None:
    held = zoo.test_set(NAME)
    inputs, truth = np.asarray(zoo.inputs(NAME, held), dtype=np.float64), held.labels
    logits = target().query(inputs).require_logits()
    found = [
        calibrated_noise(logits, truth, np.random.default_rng(4), accuracy_lost=lost)
        for lost in (0.005, 0.01, 0.05)
    ]
    assert 0.3 < found[0] < found[1] < found[2] < 2
    noise = np.random.default_rng(5).normal(scale=found[1], size=(400, *logits.shape))
    lost = (logits.argmax(axis=1) == truth).mean() - (
        (logits + noise).argmax(axis=2) == truth
    ).mean()
    assert lost == pytest.approx(0.01, abs=0.003)
    scaled = calibrated_noise(logits, truth, np.random.default_rng(4), spread=2.0)
    assert scaled < found[1]


def test_strengths_that_make_no_sense_are_refused() -> None:
    rng = np.random.default_rng(0)
    for spread in (1.0, float("inf"), -2.0):
        with pytest.raises(DataSplitError):
            Scaled(target(), spread=spread, rng=rng)
    for radius in (0.0, float("nan")):
        with pytest.raises(DataSplitError):
            Shifted(target(), radius=radius, rng=rng)
    with pytest.raises(AbilityError):
        Scaled(LabelsOnly(target()), spread=2.0, rng=rng)
    with pytest.raises(AbilityError):
        Shifted(Softmax(target()), radius=1.0, rng=rng)
    with pytest.raises(TooFewRecordsError):
        calibrated_noise(np.zeros((0, 3)), np.zeros(0, dtype=np.int64), rng)
    with pytest.raises(DataSplitError):
        calibrated_noise(np.ones((2, 3)), np.zeros(2, dtype=np.int64), rng, accuracy_lost=0.0)
