"""Wrappers: what each hides, that they compose, and that none hides a query from the ledger."""

from __future__ import annotations

import copy
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from attacks.core.oracle import (
    LABELS,
    LOGITS,
    PROBABILITIES,
    Answer,
    MeteredOracle,
    OracleInfo,
    softmax,
)
from attacks.core.wrappers import Budget, LabelsOnly, Noisy, Recorded, Replayed, Rounded, Softmax
from attacks.errors import (
    AbilityError,
    AnswerFileError,
    BudgetError,
    DataSplitError,
    InterruptedOracleError,
)
from tests.paths import CHECKOUT


class Linear(MeteredOracle):
    """Answers x @ weights, 4 records a request, until ``lives`` requests were answered."""

    def __init__(self, *, lives: int = 100_000, version: str = "1", batch: int | None = 4) -> None:
        super().__init__(
            OracleInfo(
                name="linear",
                kind="plaintext",
                input_shape=(2,),
                classes=3,
                low=-1.0,
                high=1.0,
                answers=frozenset({LOGITS, LABELS}),
                batch=batch,
                version=version,
            )
        )
        self.lives = lives

    def _answer(self, records: NDArray[np.float64]) -> Answer:
        if self.lives == 0:
            raise InterruptedOracleError("no more", answered=0)
        self.lives -= 1
        return Answer.of_logits(records @ np.array([[1.0, -2.0, 0.5], [0.25, 1.0, -1.0]]))


def drawn(count: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 2))


def logits_of(answer: Answer) -> NDArray[np.float64]:
    assert answer.logits is not None
    return answer.logits


def test_a_budget_refuses_before_it_charges_and_says_what_would_do() -> None:
    oracle = Linear()
    budget = Budget(oracle, records=10)
    budget.query(drawn(7))
    assert budget.left == 3
    with pytest.raises(BudgetError, match="4 records asked with 3 of a budget of 10 left: at le"):
        budget.query(drawn(4))
    with pytest.raises(BudgetError, match="at least 11 are needed"):
        budget.query(drawn(4))
    assert oracle.ledger.spent.records == 7
    budget.query(drawn(3))
    assert budget.left == 0
    with pytest.raises(DataSplitError):
        budget.query(np.zeros((1, 5)))
    with pytest.raises(BudgetError, match="at least 1 record"):
        Budget(oracle, records=0)


def test_a_failed_query_costs_the_budget_what_the_ledger_was_charged() -> None:
    budget = Budget(Linear(lives=1), records=20)
    with pytest.raises(InterruptedOracleError):
        budget.query(drawn(12))
    assert (budget.ledger.spent.records, budget.left) == (8, 12)


def test_a_copied_budget_is_the_same_budget() -> None:
    budget = Budget(Linear(), records=5)
    copy.deepcopy(budget).query(drawn(3))
    copy.copy(budget).query(drawn(2))
    with pytest.raises(BudgetError):
        budget.query(drawn(1))


def test_labels_only_hides_everything_else() -> None:
    plain, hidden = Linear().query(drawn(9)), LabelsOnly(Linear())
    answer = hidden.query(drawn(9))
    assert hidden.info.answers == {LABELS}
    assert (answer.labels == plain.labels).all()
    assert answer.logits is answer.probabilities is answer.slots is None
    assert answer.level is answer.scale is None
    with pytest.raises(AbilityError):
        answer.require_scores()


def test_softmax_answers_probabilities_instead_of_logits() -> None:
    oracle = Softmax(Linear())
    answer = oracle.query(drawn(9))
    assert oracle.info.answers == {LABELS, PROBABILITIES}
    assert answer.logits is None
    assert answer.probabilities is not None
    assert np.allclose(answer.probabilities, softmax(logits_of(Linear().query(drawn(9)))))


def test_rounded_keeps_the_label_and_only_the_places_asked_for() -> None:
    exact = Linear().query(drawn(50))
    answer = Rounded(Linear(), decimals=1).query(drawn(50))
    assert (logits_of(answer) == np.round(logits_of(exact), 1)).all()
    assert (answer.labels == exact.labels).all()
    probabilities = Rounded(Softmax(Linear()), decimals=0).query(drawn(50)).probabilities
    assert probabilities is not None and set(probabilities.ravel()) <= {0.0, 1.0}
    with pytest.raises(DataSplitError):
        Rounded(Linear(), decimals=-1)


def test_noise_has_the_scale_asked_for_and_is_drawn_anew() -> None:
    rng = np.random.default_rng(3)
    exact = logits_of(Linear().query(drawn(4000)))
    noisy = Noisy(Linear(), scale=0.1, rng=rng)
    first, second = noisy.query(drawn(4000)), noisy.query(drawn(4000))
    errors = logits_of(first) - exact
    # 12,000 draws: the sample deviation lies within 3.3 % of the true one but for 1e-6.
    assert abs(errors.std() / 0.1 - 1) < 0.033
    assert abs(np.corrcoef(errors.ravel(), (logits_of(second) - exact).ravel())[0, 1]) < 0.05
    assert (first.labels == logits_of(first).argmax(axis=1)).all()
    again = Noisy(Linear(), scale=0.1, rng=np.random.default_rng(3)).query(drawn(4000))
    assert (logits_of(again) == logits_of(first)).all()
    for scale in (0.0, -1.0, float("nan")):
        with pytest.raises(DataSplitError):
            Noisy(Linear(), scale=scale, rng=rng)


def test_noisy_probabilities_are_those_of_the_noisy_logits() -> None:
    outside = Noisy(Softmax(Linear()), scale=0.3, rng=np.random.default_rng(1)).query(drawn(9))
    inside = Softmax(Noisy(Linear(), scale=0.3, rng=np.random.default_rng(1))).query(drawn(9))
    assert outside.probabilities is not None and inside.probabilities is not None
    assert np.allclose(outside.probabilities, inside.probabilities)
    assert (outside.labels == inside.labels).all()


def test_scores_cannot_be_made_of_labels() -> None:
    only = LabelsOnly(Linear())
    for wrap in (
        lambda: Softmax(only),
        lambda: Rounded(only, decimals=2),
        lambda: Noisy(only, scale=1.0, rng=np.random.default_rng(0)),
    ):
        with pytest.raises(AbilityError, match="answers only labels"):
            wrap()


def test_wrappers_compose_and_the_innermost_ledger_counts_once(tmp_path: Path) -> None:
    oracle = Linear()
    noisy = Noisy(Softmax(oracle), scale=0.01, rng=np.random.default_rng(0))
    whole = Budget(Recorded(Rounded(noisy, decimals=3), tmp_path / "a"), records=100)
    answer = whole.query(drawn(10))
    assert whole.ledger is oracle.ledger
    assert (oracle.ledger.spent.records, oracle.ledger.spent.requests) == (10, 3)
    assert answer.probabilities is not None and answer.logits is None
    assert whole.info.version == "1+softmax+noisy(0.01)+rounded(3)"


def test_what_was_recorded_is_not_charged_again(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    first = Recorded(Linear(), path).query(drawn(10))
    oracle = Linear()
    again = Recorded(oracle, path)
    answer = again.query(np.concatenate([drawn(3, seed=1), drawn(10)]))
    assert (logits_of(answer)[3:] == logits_of(first)).all()
    assert oracle.ledger.spent.records == 3
    assert (again.reused, answer.requests) == (10, 1)


def test_a_record_asked_twice_is_asked_twice_and_replayed_in_order(tmp_path: Path) -> None:
    path, records = tmp_path / "answers", np.repeat(drawn(1), 6, axis=0)

    def noisy(oracle: Linear, seed: int) -> Recorded:
        return Recorded(Noisy(oracle, scale=1.0, rng=np.random.default_rng(seed)), path)

    oracle = Linear()
    recording = noisy(oracle, 0)
    first = [logits_of(recording.query(records)), logits_of(recording.query(records))]
    assert oracle.ledger.spent.records == 12
    assert len(np.unique(np.concatenate(first)[:, 0])) == 12
    replaying = noisy(Linear(), 1)
    second = [logits_of(replaying.query(records)), logits_of(replaying.query(records))]
    assert (np.concatenate(first) == np.concatenate(second)).all()
    assert replaying.ledger.spent.records == 0


def test_an_oracle_that_dies_leaves_what_was_paid_for(tmp_path: Path) -> None:
    path, records = tmp_path / "answers", drawn(18)
    recorded = Recorded(Linear(lives=3), path)
    with pytest.raises(InterruptedOracleError, match="12 of 18 records answered and kept") as died:
        recorded.query(records)
    assert died.value.answered == 12
    oracle = Linear()
    answer = Recorded(oracle, path).query(records)
    assert oracle.ledger.spent.records == 6
    assert (logits_of(answer) == logits_of(Linear().query(records))).all()


def test_the_same_recording_goes_on_after_an_interruption(tmp_path: Path) -> None:
    oracle = Linear(lives=2)
    recorded = Recorded(oracle, tmp_path / "answers")
    with pytest.raises(InterruptedOracleError):
        recorded.query(drawn(10))
    oracle.lives = 9
    assert len(recorded.query(drawn(10))) == 10
    # 4 + 4 kept, 2 lost with the request that died and asked once more.
    assert oracle.ledger.spent.records == 12


DYING = """
import os, sys
import numpy as np
from tests.attacks.core.test_wrappers import Linear, drawn
from attacks.core.wrappers import Recorded
class Fatal(Linear):
    def _answer(self, records):
        if self.lives == 0:
            os._exit(9)
        return super()._answer(records)
Recorded(Fatal(lives=2), sys.argv[1]).query(drawn(18))
"""


def test_an_adversary_killed_half_way_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(path)], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 9, done.stderr
    oracle = Linear()
    answer = Recorded(oracle, path).query(drawn(18))
    assert oracle.ledger.spent.records == 10
    assert (logits_of(answer) == logits_of(Linear().query(drawn(18)))).all()


@pytest.mark.parametrize("other", [Linear(version="2"), LabelsOnly(Linear())])
def test_a_record_of_another_target_is_refused(tmp_path: Path, other: Linear | LabelsOnly) -> None:
    path = tmp_path / "answers"
    Recorded(Linear(), path).query(drawn(4))
    with pytest.raises(AnswerFileError, match="answers of another target"):
        Recorded(other, path)
    with pytest.raises(AnswerFileError, match="answers of another target"):
        Replayed(path, other.info)
    assert len(Replayed(path).query(drawn(4))) == 4


def test_replayed_answers_only_what_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    expected = Recorded(Linear(), path).query(drawn(10))
    for replayed in (Replayed(path), Replayed(path, Linear().info)):
        answer = replayed.query(drawn(10))
        assert (logits_of(answer) == logits_of(expected)).all()
        assert replayed.info == Linear().info
        assert replayed.ledger.spent.records == 10
        with pytest.raises(AnswerFileError, match="4 of 4 records were never recorded"):
            replayed.query(drawn(5, seed=9))


def test_files_that_hold_no_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AnswerFileError, match="record answers first"):
        Replayed(tmp_path / "missing")
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"x" * 5000)
    with pytest.raises(AnswerFileError, match="not a readable file of answers"):
        Recorded(Linear(), garbage)
    with pytest.raises(AnswerFileError, match="cannot open"):
        Recorded(Linear(), tmp_path / "no" / "folder")
    foreign = tmp_path / "foreign"
    with sqlite3.connect(foreign) as database:
        database.execute("CREATE TABLE something (x)")
    database.close()
    with pytest.raises(AnswerFileError, match="format 0, this build reads 1"):
        Recorded(Linear(), foreign)


def test_a_damaged_answer_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    recorded = Recorded(Linear(), path)
    recorded.query(drawn(4))
    recorded.close()
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE answers SET logits = x'0011'")
    database.close()
    with pytest.raises(AnswerFileError, match="is damaged"):
        Recorded(Linear(), path).query(drawn(4))


def test_a_target_without_request_size_is_recorded_whole(tmp_path: Path) -> None:
    oracle = Linear(batch=None)
    assert len(Recorded(oracle, tmp_path / "answers").query(drawn(5000))) == 5000
    assert oracle.ledger.spent.requests == 2
