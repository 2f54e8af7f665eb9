"""One suite over every oracle and wrapper: what an attack may rely on, whatever it asks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from attacks.core.oracle import LABELS, LOGITS, PROBABILITIES, SLOTS, Answer, MeteredOracle, Oracle
from attacks.core.wrappers import Budget, LabelsOnly, Noisy, Recorded, Replayed, Rounded, Softmax
from attacks.errors import BadAnswerError, DataSplitError
from attacks.oracles.estimator import EstimatorOracle
from attacks.oracles.plaintext import TorchOracle
from attacks.oracles.remote import RemoteOracle, serve
from attacks.oracles.simulated import SimulatedOracle
from he_infer.activations.layer import PolynomialActivation
from he_infer.compiler.pipeline import compile
from he_infer.plan.plan import Plan

FEATURES, CLASSES, RECORDS, BATCH = 4, 3, 50, 16


def drawn(count: int = RECORDS, seed: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(-1, 1, (count, FEATURES))


def network(*, spoilt: bool = False) -> nn.Module:
    torch.manual_seed(0)
    square = PolynomialActivation(torch.tensor([[0.25, 0.5, 0.25]]))
    last = nn.Linear(6, CLASSES)
    model = nn.Sequential(nn.Linear(FEATURES, 6), square, last)
    if spoilt:
        with torch.no_grad():
            last.bias[1] = torch.nan
    return model


def fitted(estimator: Any) -> Any:
    inputs = drawn(200, seed=2)
    return estimator.fit(inputs, (inputs[:, 0] > 0).astype(int) + (inputs[:, 1] > 0.5))


@pytest.fixture(scope="module")
def plan() -> Plan:
    sample = np.concatenate([drawn(500, seed=3), np.ones((1, 4)), -np.ones((1, 4))])
    return compile(network(), sample, name="small", batch=BATCH)


@pytest.fixture(scope="module")
def served(plan: Plan) -> Iterator[RemoteOracle]:
    with serve(plan) as oracle:
        yield oracle


def plain() -> TorchOracle:
    return TorchOracle(network(), name="small", input_shape=(FEATURES,), low=-1.0, high=1.0)


def estimator(of: Any, answers: frozenset[str] | None = None) -> EstimatorOracle:
    return EstimatorOracle(fitted(of), name="fitted", low=-1.0, high=1.0, answers=answers)


def replayed(folder: Path) -> Replayed:
    recorded = Recorded(plain(), folder / "replayed")
    for _ in range(8):
        recorded.query(drawn())
    for count in (1, 17):
        recorded.query(drawn(count, seed=4))
    recorded.close()
    return Replayed(folder / "replayed")


def of_art() -> Oracle:
    pytest.importorskip("art", reason="ART is an extra: pip install 'he-infer[peers]'")
    from attacks.oracles.art import ArtOracle, as_art_classifier

    return ArtOracle(as_art_classifier(plain()), name="art")


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


# name → (how to make it in a folder, answers the same twice)
LOCAL: dict[str, tuple[Callable[[Path], Oracle], bool]] = {
    "torch": (lambda _: plain(), True),
    "logistic regression": (lambda _: estimator(LogisticRegression()), True),
    "one-vs-rest": (lambda _: estimator(OneVsRestClassifier(LogisticRegression())), True),
    "tree": (lambda _: estimator(DecisionTreeClassifier(random_state=0)), True),
    "tree, labels": (
        lambda _: estimator(DecisionTreeClassifier(random_state=0), frozenset({LABELS})),
        True,
    ),
    "art": (lambda _: of_art(), True),
    "replayed": (replayed, True),
    "budget": (lambda _: Budget(plain(), records=1000), True),
    "labels only": (lambda _: LabelsOnly(plain()), True),
    "softmax": (lambda _: Softmax(plain()), True),
    "rounded": (lambda _: Rounded(plain(), decimals=2), True),
    "noisy": (lambda _: Noisy(plain(), scale=0.1, rng=rng()), False),
    "recorded": (lambda folder: Recorded(plain(), folder / "kept"), True),
    "all of them": (
        lambda folder: Budget(
            Recorded(
                Rounded(Noisy(Softmax(plain()), scale=0.1, rng=rng()), decimals=3),
                folder / "kept",
            ),
            records=1000,
        ),
        False,
    ),
}
SERVED = ("simulated", "encrypted", "encrypted, labels", "encrypted, recorded")
NAMES = (*LOCAL, *SERVED)


@pytest.fixture(params=NAMES)
def oracle(request: pytest.FixtureRequest, tmp_path: Path) -> Oracle:
    name = str(request.param)
    if name in LOCAL:
        return LOCAL[name][0](tmp_path)
    if name == "simulated":
        return SimulatedOracle(request.getfixturevalue("plan"), rng=rng())
    remote: RemoteOracle = request.getfixturevalue("served")
    if name == "encrypted, labels":
        return LabelsOnly(remote)
    return remote if name == "encrypted" else Recorded(remote, tmp_path / "kept")


def test_it_is_an_oracle_that_says_what_it_answers(oracle: Oracle) -> None:
    assert isinstance(oracle, Oracle)
    info = oracle.info
    assert (info.input_shape, info.classes, info.features) == ((FEATURES,), CLASSES, FEATURES)
    assert (info.low, info.high) == pytest.approx((-1.0, 1.0))
    assert LABELS in info.answers <= {LABELS, LOGITS, PROBABILITIES, SLOTS}
    answer = oracle.query(drawn())
    for ability, field in (
        (LOGITS, answer.logits),
        (PROBABILITIES, answer.probabilities),
        (SLOTS, answer.slots),
    ):
        assert (field is not None) == (ability in info.answers), ability


def test_shapes_and_types(oracle: Oracle) -> None:
    for count in (1, RECORDS):
        answer = oracle.query(drawn(count) if count > 1 else drawn(1, seed=4))
        assert len(answer) == count
        assert answer.labels.shape == (count,) and answer.labels.dtype == np.int64
        assert ((answer.labels >= 0) & (answer.labels < CLASSES)).all()
        for scores in (answer.logits, answer.probabilities):
            if scores is not None:
                assert scores.shape == (count, CLASSES) and scores.dtype == np.float64
                assert np.isfinite(scores).all()
        if answer.probabilities is not None:
            assert (answer.probabilities >= 0).all()
            assert np.abs(answer.probabilities.sum(axis=1) - 1).max() < 0.01
        assert answer.seconds > 0 and answer.requests >= 1


def test_the_ledger_counts_exactly(oracle: Oracle) -> None:
    before = oracle.ledger.spent
    first, second = oracle.query(drawn()), oracle.query(drawn(17, seed=4))
    spent = oracle.ledger.spent - before
    assert spent.records == RECORDS + 17
    size = oracle.info.batch or RECORDS
    assert spent.requests == -(-RECORDS // size) + -(-17 // size)
    assert spent.requests == first.requests + second.requests
    assert spent.bytes_sent == first.bytes_sent + second.bytes_sent
    assert spent.bytes_received == first.bytes_received + second.bytes_received
    assert spent.seconds == pytest.approx(first.seconds + second.seconds)


@pytest.mark.parametrize(
    "records",
    [
        np.zeros((0, FEATURES)),
        np.zeros((2, FEATURES + 1)),
        np.zeros(FEATURES),
        np.full((1, FEATURES), np.nan),
    ],
    ids=["none", "too wide", "no batch axis", "nan"],
)
def test_records_that_do_not_fit_are_refused_free_of_charge(
    oracle: Oracle, records: NDArray[np.float64]
) -> None:
    before = oracle.ledger.spent
    with pytest.raises(DataSplitError):
        oracle.query(records)
    assert oracle.ledger.spent == before


def test_a_copy_asks_on_the_same_ledger(oracle: Oracle) -> None:
    before = oracle.ledger.spent.records
    copy.deepcopy(oracle).query(drawn())
    assert oracle.ledger.spent.records == before + RECORDS


def test_nothing_public_leads_beside_the_ledger(oracle: Oracle) -> None:
    public = {name for name in dir(oracle) if not name.startswith("_")}
    assert public - {"left", "reused", "close"} == {"info", "ledger", "query"}


@pytest.mark.parametrize("name", LOCAL)
def test_equal_oracles_give_equal_answers(name: str, tmp_path: Path) -> None:
    make, repeats = LOCAL[name]
    answers = []
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        asked = make(tmp_path / run)
        answers.append([asked.query(drawn()), asked.query(drawn())])
    (first, second), (again, _) = answers
    assert same(first, again)
    assert same(first, second) == repeats


def test_simulated_answers_follow_the_seed(plan: Plan) -> None:
    first, again, other = (
        SimulatedOracle(plan, rng=np.random.default_rng(seed)).query(drawn()) for seed in (0, 0, 1)
    )
    assert same(first, again)
    assert not same(first, other)


def test_plaintext_simulated_and_encrypted_agree(plan: Plan, served: RemoteOracle) -> None:
    exact = plain().query(drawn()).require_logits()
    simulated = SimulatedOracle(plan, rng=rng()).query(drawn()).require_logits()
    encrypted = served.query(drawn()).require_logits()
    # A plan of ten bits promises errors of standard deviation 2^-10, not errors below it.
    assert np.abs(simulated - exact).max() < 6 * 2.0**-10
    assert np.abs(encrypted - exact).max() < 6 * 2.0**-10
    assert not (encrypted == exact).any()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda oracle, _: oracle,
        lambda oracle, _: Budget(oracle, records=1000),
        lambda oracle, _: LabelsOnly(oracle),
        lambda oracle, _: Noisy(oracle, scale=0.1, rng=rng()),
        lambda oracle, folder: Recorded(oracle, folder / "kept"),
    ],
    ids=["bare", "budget", "labels only", "noisy", "recorded"],
)
def test_nan_answers_are_refused_below_every_wrapper(
    wrap: Callable[[MeteredOracle, Path], Oracle], tmp_path: Path
) -> None:
    spoilt = TorchOracle(
        network(spoilt=True), name="nan", input_shape=(FEATURES,), low=-1.0, high=1.0
    )
    with pytest.raises(BadAnswerError, match="50 of 50 answers are not finite"):
        wrap(spoilt, tmp_path).query(drawn())
    assert spoilt.ledger.spent.records == RECORDS


def same(first: Answer, second: Answer) -> bool:
    return (
        np.array_equal(first.labels, second.labels)
        and equal(first.logits, second.logits)
        and equal(first.probabilities, second.probabilities)
    )


def equal(first: NDArray[np.float64] | None, second: NDArray[np.float64] | None) -> bool:
    if first is None or second is None:
        return first is second
    return np.array_equal(first, second)
