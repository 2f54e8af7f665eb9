"""Canaries: hidden evenly, compared strictly, and as likely to catch a lie as is claimed."""

from __future__ import annotations

import itertools
import math
import random
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from he_infer.client.canaries import (
    Canaries,
    IntegrityError,
    canaries_needed,
    check,
    detection_probability,
    hypergeometric_detection,
    mix,
    predict_with_canaries,
)
from he_infer.errors import InputError, ParameterError, ServiceError

Floats = NDArray[np.float64]
WEIGHTS = np.random.default_rng(0).normal(size=(6, 3))


def model(records: NDArray[Any]) -> Floats:
    return np.asarray(records.reshape(len(records), -1) @ WEIGHTS, dtype=np.float64)


def records_of(count: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).normal(size=(count, 2, 3))


def canaries_of(count: int, *, tolerance: float = 1e-3) -> Canaries:
    known = records_of(count, seed=2)
    return Canaries(records=known, logits=model(known), tolerance=tolerance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    logits: Floats


@dataclass(slots=True, kw_only=True)
class Client:
    """Answers with the model, through whatever the server does to the logits."""

    tamper: Callable[[Floats], Floats]
    seen: int = 0

    def predict(self, records: NDArray[Any]) -> Answer:
        self.seen += len(records)
        return Answer(logits=self.tamper(model(records)))


def with_noise(logits: Floats) -> Floats:
    return logits + np.random.default_rng(3).uniform(-1e-4, 1e-4, logits.shape)


def test_an_honest_server_passes_and_order_is_kept() -> None:
    client, records = Client(tamper=with_noise), records_of(50)
    answer, verdict = predict_with_canaries(client, records, canaries_of(8), share=0.2)
    np.testing.assert_allclose(answer.logits, model(records), atol=2e-4)
    np.testing.assert_array_equal(answer.labels, model(records).argmax(axis=1))
    assert (verdict.checked, verdict.wrong, client.seen) == (13, 0, 63)  # 13/63 ≥ 0.2


def test_one_record_needs_no_batch_axis() -> None:
    client, record = Client(tamper=with_noise), records_of(1)[0]
    answer, verdict = predict_with_canaries(client, record, canaries_of(3), share=0.01)
    assert answer.labels.shape == (1,) and (verdict.checked, client.seen) == (1, 2)


@pytest.mark.parametrize(
    "tamper",
    [
        lambda logits: logits + 2e-3,
        lambda logits: np.zeros_like(logits),
        lambda logits: np.full_like(logits, np.nan),
        lambda logits: logits[::-1],
        lambda logits: logits[:, ::-1],
    ],
    ids=["shifted", "zero", "nan", "reversed", "outputs swapped"],
)
def test_whole_replies_that_are_wrong_are_caught_at_once(
    tamper: Callable[[Floats], Floats],
) -> None:
    with pytest.raises(IntegrityError, match="4 canaries") as caught:
        predict_with_canaries(
            Client(tamper=tamper), records_of(12), canaries_of(4), share=0.25, rng=random.Random(5)
        )
    assert isinstance(caught.value, ServiceError)
    assert caught.value.verdict.checked == 4 and caught.value.verdict.wrong >= 2


def test_the_error_and_what_is_printed_tell_nothing_about_records() -> None:
    mixed = mix(records_of(5), canaries_of(2), count=2)
    logits = model(mixed.records)
    messages = set()
    for position in mixed.canary_at:
        changed = logits.copy()
        changed[position] += 1
        with pytest.raises(IntegrityError) as caught:
            check(mixed, changed)
        messages.add(str(caught.value))
    assert len(messages) == 1  # the same whichever it was
    assert repr(mixed) == "Mixed(tolerance=0.001, scaling=1.0, shift=0.0)"
    assert repr(canaries_of(2)) == "Canaries(tolerance=0.001, scaling=1.0, shift=0.0)"


def test_a_lie_about_one_record_is_caught_exactly_if_it_is_a_canary() -> None:
    mixed = mix(records_of(20), canaries_of(5), count=5)
    for position in range(25):
        logits = model(mixed.records)
        logits[position, 0] += 1
        if position in mixed.canary_at:
            with pytest.raises(IntegrityError):
                check(mixed, logits)
        else:
            check(mixed, logits)


def test_every_arrangement_is_equally_likely() -> None:
    rng, trials = random.Random(7), 6000
    found = Counter(
        tuple(sorted(mix(records_of(3), canaries_of(4), count=2, rng=rng).canary_at.tolist()))
        for _ in range(trials)
    )
    arrangements = list(itertools.combinations(range(5), 2))
    assert set(found) == set(arrangements)
    expected = trials / len(arrangements)
    spread = math.sqrt(expected * (1 - 1 / len(arrangements)))
    assert all(abs(found[a] - expected) < 4.5 * spread for a in arrangements)


def test_positions_come_from_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Watched(secrets.SystemRandom):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(secrets, "SystemRandom", Watched)
    predict_with_canaries(Client(tamper=with_noise), records_of(4), canaries_of(2), share=0.5)
    assert len(made) == 1


def test_canaries_repeat_only_when_there_are_too_few() -> None:
    known = canaries_of(4)
    for count, most in ((4, 1), (6, 2), (12, 3)):
        mixed = mix(records_of(2), known, count=count)
        rows = Counter(row.tobytes() for row in mixed.records[mixed.canary_at])
        assert len(rows) == 4 and max(rows.values()) == most
        np.testing.assert_array_equal(model(mixed.records[mixed.canary_at]), mixed.expected)


@pytest.mark.parametrize(
    ("records", "share", "count"), [(9, 0.1, 1), (90, 0.1, 10), (10, 0.5, 10), (1, 1e-9, 1)]
)
def test_a_share_is_of_what_is_sent(records: int, share: float, count: int) -> None:
    assert len(mix(records_of(records), canaries_of(3), share=share).canary_at) == count


def caught_by(tamper_rate: float, *, trials: int, records: int, count: int) -> int:
    """How often a server is caught that falsifies each record on its own."""
    rng, lies, known = random.Random(11), np.random.default_rng(11), canaries_of(16)
    batch, caught = records_of(records), 0
    for _ in range(trials):
        mixed = mix(batch, known, count=count, rng=rng)
        logits = model(mixed.records)
        logits[lies.random(len(logits)) < tamper_rate] += 1
        try:
            check(mixed, logits)
        except IntegrityError:
            caught += 1
    return caught


@pytest.mark.parametrize("count", [10, 50, 200])
def test_one_percent_of_lies_is_caught_as_often_as_stated(count: int) -> None:
    trials = 1000
    stated = detection_probability(count, 0.01)
    caught = caught_by(0.01, trials=trials, records=30, count=count)
    spread = math.sqrt(trials * stated * (1 - stated))
    assert abs(caught - trials * stated) < 3.3 * spread  # 99.9 % of the binomial


def test_a_fixed_number_of_lies_is_caught_as_often_as_stated() -> None:
    rng, known, trials, caught = random.Random(13), canaries_of(8), 1000, 0
    stated = hypergeometric_detection(40, 8, 5)
    for _ in range(trials):
        mixed = mix(records_of(32), known, count=8, rng=rng)
        logits = model(mixed.records)
        logits[:5] += 1  # it may as well choose the first: it knows nothing
        try:
            check(mixed, logits)
        except IntegrityError:
            caught += 1
    assert abs(caught - trials * stated) < 3.3 * math.sqrt(trials * stated * (1 - stated))


def test_probabilities_are_those_of_counting() -> None:
    for total, canaries, corrupted in itertools.product(range(1, 9), range(9), range(9)):
        if canaries > total or corrupted > total:
            continue
        unseen = math.comb(total - canaries, corrupted) / math.comb(total, corrupted)
        stated = hypergeometric_detection(total, canaries, corrupted)
        assert stated == pytest.approx(1 - unseen, abs=1e-12)
    assert detection_probability(3, 0.5) == pytest.approx(7 / 8)
    assert detection_probability(0, 1.0) == 0 and detection_probability(1, 1.0) == 1
    assert detection_probability(10, 1e-18) == pytest.approx(1e-17)  # no cancellation


@pytest.mark.parametrize("rate", [1e-6, 0.01, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("probability", [1e-9, 0.5, 0.875, 0.99, 1 - 1e-9])
def test_canaries_needed_are_the_fewest(rate: float, probability: float) -> None:
    count = canaries_needed(rate, probability)
    assert detection_probability(count, rate) >= probability
    assert count == 1 or detection_probability(count - 1, rate) < probability


@pytest.mark.parametrize(
    "call",
    [
        lambda: detection_probability(-1, 0.5),
        lambda: detection_probability(1, 1.5),
        lambda: hypergeometric_detection(3, 4, 0),
        lambda: hypergeometric_detection(3, 0, 4),
        lambda: canaries_needed(0.0, 0.5),
        lambda: canaries_needed(0.5, 1.0),
        lambda: mix(records_of(2), canaries_of(2)),
        lambda: mix(records_of(2), canaries_of(2), share=0.5, count=1),
        lambda: mix(records_of(2), canaries_of(2), share=1.0),
        lambda: mix(records_of(2), canaries_of(2), count=0),
    ],
)
def test_numbers_that_make_no_sense_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ParameterError, match=r"expected .*:"):
        call()


def test_records_and_logits_of_another_model_are_refused() -> None:
    with pytest.raises(InputError, match=r"batch, 2, 3.*\(4, 6\)"):
        mix(np.zeros((4, 6)), canaries_of(2), count=1)
    with pytest.raises(InputError, match="got"):
        mix(np.zeros((0, 2, 3)), canaries_of(2), count=1)
    mixed = mix(records_of(2), canaries_of(2), count=1)
    with pytest.raises(InputError, match=r"\(3, 3\).*\(2, 3\)"):
        check(mixed, np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("records", "logits", "tolerance", "reason"),
    [
        (records_of(2), np.zeros((3, 3)), 0.1, "one row of logits"),
        (records_of(0), np.zeros((0, 3)), 0.1, "at least one canary"),
        (records_of(2), np.array([[0.0, np.nan], [1.0, 2.0]]), 0.1, "finite"),
        (records_of(2) * np.inf, np.eye(2), 0.1, "finite"),
        (records_of(2), np.eye(2), 0.0, "positive tolerance"),
        (records_of(2), np.eye(2), math.inf, "positive tolerance"),
        (records_of(2), np.eye(2), 0.5, "one answer fits all"),
    ],
)
def test_canaries_that_prove_nothing_are_refused(
    records: Floats, logits: Floats, tolerance: float, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        Canaries(records=records, logits=logits, tolerance=tolerance)


def blur(logits: Floats, *, scaling: float, shift: float) -> Floats:
    """One factor and one sum for each record, as a plan with these options draws them."""
    rng = np.random.default_rng(5)
    factors = scaling ** rng.uniform(-1, 1, (len(logits), 1))
    return np.asarray(factors * logits + rng.uniform(-shift, shift, (len(logits), 1)))


@pytest.mark.parametrize(("scaling", "shift"), [(2.0, 0.0), (1.0, 8.0), (2.0, 8.0)])
def test_answers_that_a_plan_scales_and_shifts_are_known_up_to_that(
    scaling: float, shift: float
) -> None:
    known = records_of(20, seed=2)
    canaries = Canaries(
        records=known, logits=model(known), tolerance=1e-3, scaling=scaling, shift=shift
    )
    mixed = mix(records_of(30), canaries, count=20)
    honest = blur(model(mixed.records), scaling=scaling, shift=shift)
    _, verdict = check(mixed, honest)
    assert verdict.wrong == 0
    # A canary that states neither takes the same answers for lies.
    with pytest.raises(IntegrityError):
        check(mix(records_of(30), canaries_of(20), count=20), honest)
    # More than the plan draws, or another answer, is still a lie.
    for lie in (4 * scaling * honest, honest[:, ::-1], honest + 2 * shift + 1):
        with pytest.raises(IntegrityError):
            check(mixed, lie)


@pytest.mark.parametrize(("scaling", "shift"), [(0.5, 0.0), (math.inf, 0.0), (1.0, -1.0)])
def test_defences_that_no_plan_has_are_refused(scaling: float, shift: float) -> None:
    known = records_of(4)
    with pytest.raises(InputError, match="scaling of 1 or more"):
        Canaries(records=known, logits=model(known), tolerance=1e-3, scaling=scaling, shift=shift)
