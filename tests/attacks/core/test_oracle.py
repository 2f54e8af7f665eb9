"""The seam between attacks and targets: records, answers, the ledger."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from attacks.core.oracle import (
    LABELS,
    LOGITS,
    Answer,
    MeteredOracle,
    Oracle,
    OracleInfo,
    QueryLedger,
    Spent,
    as_logits,
    join_answers,
    softmax,
)
from attacks.errors import (
    AbilityError,
    BadAnswerError,
    DataSplitError,
    InterruptedOracleError,
)

INFO = OracleInfo(
    name="toy",
    kind="plaintext",
    input_shape=(2,),
    classes=3,
    low=-1.0,
    high=1.0,
    answers=frozenset({LOGITS, LABELS}),
    batch=4,
)


class Toy(MeteredOracle):
    """Answers (x0, x1, fixed), and dies after ``lives`` requests."""

    def __init__(
        self, *, lives: int = 1000, fixed: float = 0.0, columns: int = 3, bounded: bool = False
    ) -> None:
        super().__init__(INFO, bounded=bounded)
        self.lives = lives
        self.fixed = fixed
        self.columns = columns
        self.sizes: list[int] = []

    def _answer(self, records: NDArray[np.float64]) -> Answer:
        if self.lives == 0:
            raise InterruptedOracleError("the lights went out", answered=0)
        self.lives -= 1
        self.sizes.append(len(records))
        logits = np.full((len(records), self.columns), self.fixed)
        logits[:, :2] = records
        return replace(Answer.of_logits(logits), bytes_sent=10, bytes_received=3)


def test_records_go_out_in_requests_and_every_one_is_on_the_ledger() -> None:
    oracle = Toy()
    records = np.linspace(-1, 1, 20).reshape(10, 2)
    answer = oracle.query(records)
    assert isinstance(oracle, Oracle)
    assert oracle.sizes == [4, 4, 2]
    assert answer.logits is not None
    assert (answer.logits[:, :2] == records).all()
    spent = oracle.ledger.spent
    assert (spent.records, spent.requests) == (10, 3)
    assert (spent.bytes_sent, spent.bytes_received) == (30, 9)
    assert (answer.requests, answer.bytes_sent) == (3, 30)
    assert spent.seconds == pytest.approx(answer.seconds) and answer.seconds > 0


def test_a_target_that_dies_is_charged_for_what_it_was_sent() -> None:
    oracle = Toy(lives=2)
    with pytest.raises(InterruptedOracleError, match="8 of 20 records were answered") as caught:
        oracle.query(np.zeros((20, 2)))
    assert caught.value.answered == 8
    assert (oracle.ledger.spent.records, oracle.ledger.spent.requests) == (12, 3)


@pytest.mark.parametrize(
    "records",
    [
        np.zeros((0, 2)),
        np.zeros((3, 3)),
        np.zeros(2),
        np.float64(1.0),
        np.array([[0.0, np.nan]]),
        np.array([[np.inf, 0.0]]),
    ],
)
def test_records_that_do_not_fit_cost_nothing(records: NDArray[np.float64]) -> None:
    oracle = Toy()
    with pytest.raises(DataSplitError):
        oracle.query(records)
    assert oracle.ledger.spent == Spent()


def test_a_bounded_target_refuses_what_leaves_its_interval() -> None:
    oracle = Toy(bounded=True)
    oracle.query([[1.0 + 1e-9, -1.0]])
    before = oracle.ledger.spent
    with pytest.raises(DataSplitError, match=r"up to 0\.5 outside \[-1, 1\]"):
        oracle.query([[1.5, 0.0]])
    assert oracle.ledger.spent == before
    assert len(Toy().query([[1.5, 0.0]])) == 1


@pytest.mark.parametrize("fixed", [np.nan, np.inf])
def test_answers_that_are_not_finite_are_refused_but_paid(fixed: float) -> None:
    oracle = Toy(fixed=fixed)
    with pytest.raises(BadAnswerError, match="3 of 3 answers are not finite"):
        oracle.query(np.zeros((3, 2)))
    assert oracle.ledger.spent.records == 3


def test_answers_of_another_shape_are_refused() -> None:
    with pytest.raises(BadAnswerError, match=r"logits of shape \(3, 4\)"):
        Toy(columns=4).query(np.zeros((3, 2)))


def test_a_ledger_never_goes_down() -> None:
    ledger = QueryLedger()
    ledger.charge(Spent(records=5))
    for amount in (Spent(records=-5), Spent(seconds=-1.0), Spent(seconds=float("nan"))):
        with pytest.raises(ValueError, match="only goes up"):
            ledger.charge(amount)
    assert ledger.spent == Spent(records=5)


def test_a_copy_of_an_oracle_keeps_no_ledger_of_its_own() -> None:
    oracle = Toy()
    for same in (copy.copy(oracle), copy.deepcopy(oracle)):
        same.query(np.zeros((1, 2)))
    assert oracle.ledger.spent.records == 2
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(oracle)


def test_an_answer_gives_what_it_has_and_says_what_it_lacks() -> None:
    logits = np.array([[1.0, 2.0, 3.0], [0.0, -1.0, -2.0]])
    by_logits = Answer.of_logits(logits)
    assert by_logits.labels.tolist() == [2, 0]
    assert (by_logits.require_scores() == logits).all()
    assert np.allclose(by_logits.require_probabilities(), softmax(logits))
    by_probabilities = Answer.of_probabilities(softmax(logits))
    difference = by_probabilities.require_scores() - logits
    assert np.allclose(difference, difference[:, :1])
    with pytest.raises(AbilityError, match="needs logits"):
        by_probabilities.require_logits()
    only = Answer(labels=by_logits.labels)
    for need in (only.require_logits, only.require_scores, only.require_probabilities):
        with pytest.raises(AbilityError):
            need()


def test_joined_answers_drop_what_not_all_of_them_have() -> None:
    first = replace(Answer.of_logits(np.zeros((2, 3))), level=0, scale=2.0, seconds=1.0)
    second = replace(Answer.of_logits(np.ones((1, 3))), level=0, scale=4.0, seconds=2.0)
    joined = join_answers([first, second])
    assert joined.logits is not None and joined.logits.shape == (3, 3)
    assert (joined.level, joined.scale, joined.seconds, joined.requests) == (0, None, 3.0, 2)
    assert join_answers([first, Answer(labels=second.labels)]).logits is None


def test_one_output_becomes_two_logits() -> None:
    z = np.array([-2.0, 3.0])
    assert (as_logits(z) == [[0.0, -2.0], [0.0, 3.0]]).all()
    assert (as_logits(z[:, None]) == as_logits(z)).all()
    assert np.allclose(softmax(as_logits(z))[:, 1], 1 / (1 + np.exp(-z)))


@pytest.mark.parametrize("wrong", [{"classes": 1}, {"low": 1.0}, {"input_shape": ()}, {"batch": 0}])
def test_a_target_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(DataSplitError):
        replace(INFO, **wrong)  # type: ignore[arg-type]
