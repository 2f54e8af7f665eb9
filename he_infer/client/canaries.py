"""Canaries are records with known answers that catch a server that lies.

The client hides them among its own records::

    canaries = Canaries(records=known, logits=model(known), tolerance=0.01)
    answer, verdict = predict_with_canaries(client, records, canaries, share=0.1)

Encryption hides what is asked; it does not prove that the answer is the model's. The client mixes
canaries among its records, at positions drawn by ``secrets.SystemRandom``, and compares their
answers. The server cannot tell a canary from a record, since both arrive encrypted afresh each
time: which records it falsifies is independent of where canaries are. Hence, of ``total``
records sent, ``corrupted`` falsified ones are caught with :func:`hypergeometric_detection`, and
a server that falsifies each with the same chance with :func:`detection_probability`. One that
falsifies whole replies is caught at the first that holds a canary.

What this does not do:

- Rare lies pass: one record of a million is caught as often as a canary is hit, no more. It is
  evidence about a rate, not a proof of any one answer.
- A server can compute *another function* on what it cannot read, say one that agrees on most
  inputs. Canaries catch it as often as they fall where it differs: draw them from the same
  distribution as the records, and renew them.
- Changes within ``tolerance`` pass. Take a small multiple of the error that the compile report
  predicts, noise that the plan adds included. Where a plan scales or shifts its answers, so may a
  server that lies: state both, and what is checked is everything but one factor and one sum.
- How a client *reacts* is a bit that the server chose and that depends on a decryption. After an
  IntegrityError do not repeat the query: discard the secret key and leave the server.

The expected answers come from the plaintext model, where the client has it, or from earlier
answers that were trusted; those of a server that lied from the start prove nothing.
"""

from __future__ import annotations

import math
import random
import secrets
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from he_infer.errors import InputError, ParameterError, ServiceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How many canaries were ``checked``, and how many of them were answered ``wrong``."""

    checked: int
    wrong: int


class IntegrityError(ServiceError):
    """Known answers came back wrong: no answer of this batch can be trusted.

    ``verdict`` has the counts; which records they were is kept to the client's memory.
    """

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        super().__init__(
            f"expected the known answers of {verdict.checked} canaries, the server returned wrong "
            "ones: discard this batch and the secret key, and ask another server"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Canaries:
    """Records ``(k, *shape)`` whose ``logits`` (k, outputs) are known up to ``tolerance``.

    ``tolerance``: largest absolute difference that noise explains. ``scaling``, ``shift``: those
    of the served plan, by whose factor and sum an answer may differ from the known one. Raises
    InputError for shapes that do not belong together, values that are not finite, or answers so
    alike that a server with one answer to everything would pass.
    """

    records: NDArray[Any] = field(repr=False)
    logits: NDArray[np.float64] = field(repr=False)
    tolerance: float
    scaling: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        records, logits = np.asarray(self.records), np.asarray(self.logits, dtype=np.float64)
        if records.ndim == 0 or logits.ndim != 2 or not 0 < len(records) == len(logits):
            raise InputError(
                "expected at least one canary, records (k, *shape) and logits (k, outputs), got "
                f"{records.shape} and {logits.shape}: give one row of logits for each record"
            )
        if not (np.isfinite(records).all() and np.isfinite(logits).all()):
            raise InputError("expected finite canaries, got NaN or infinity: leave those out")
        if not 0 < self.tolerance < math.inf:
            raise InputError(
                f"expected a positive tolerance, got {self.tolerance}: take a small multiple of "
                "the error that the compile report predicts"
            )
        if len(logits) > 1 and np.ptp(logits, axis=0).max(initial=0.0) <= 2 * self.tolerance:
            raise InputError(
                f"the canaries' answers differ by no more than twice the tolerance "
                f"{self.tolerance:g}, so that one answer fits all: choose canaries with different "
                "answers, or a smaller tolerance"
            )
        if not (1 <= self.scaling < math.inf and 0 <= self.shift < math.inf):
            raise InputError(
                f"expected a scaling of 1 or more and a shift of 0 or more, got {self.scaling} and "
                f"{self.shift}: take those that the plan was compiled with"
            )
        object.__setattr__(self, "records", records)
        object.__setattr__(self, "logits", logits)

    def __len__(self) -> int:
        return len(self.logits)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mixed:
    """A batch with canaries in it. Where they are is secret.

    ``record_at``: where the caller's records lie in ``records``, in their order; ``canary_at``:
    where the canaries lie, whose answers are ``expected`` (canaries, outputs) up to ``scaling``,
    ``shift`` and ``tolerance``.
    """

    records: NDArray[Any] = field(repr=False)
    record_at: NDArray[np.int64] = field(repr=False)
    canary_at: NDArray[np.int64] = field(repr=False)
    expected: NDArray[np.float64] = field(repr=False)
    tolerance: float
    scaling: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckedPrediction:
    """Answers to the caller's records alone: ``logits`` (batch, outputs), ``labels`` (batch,)."""

    logits: NDArray[np.float64] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)


class Answers(Protocol):
    """What a client returns; ``he_infer.client.client.Prediction`` is one."""

    @property
    def logits(self) -> NDArray[np.float64]: ...


class Predictor(Protocol):
    """What asks the server; ``he_infer.Client`` is one."""

    def predict(self, records: NDArray[Any]) -> Answers: ...


def mix(
    records: ArrayLike,
    canaries: Canaries,
    *,
    share: float | None = None,
    count: int | None = None,
    rng: random.Random | None = None,
) -> Mixed:
    """Hide canaries among records ``(batch, *shape)``; all arrangements are equally likely.

    Either ``count`` canaries, or as many as make up ``share`` of what is sent, at least one. They
    are drawn without repetition as long as there are enough. ``rng``: for tests; by default
    ``secrets.SystemRandom``, since whoever predicts the positions passes every check. Raises
    InputError for records of another shape; ParameterError unless exactly one of the two is
    given, and sensible.
    """
    array = np.asarray(records)
    shape = canaries.records.shape[1:]
    if array.ndim == 0 or array.shape[1:] != shape or len(array) == 0:
        raise InputError(
            f"expected records (batch, {', '.join(map(str, shape))}) like the canaries', got "
            f"{array.shape}: mix records and canaries of one model"
        )
    number = _count(len(array), share, count)
    chance = secrets.SystemRandom() if rng is None else rng
    chosen: list[int] = []
    while len(chosen) < number:
        chosen += chance.sample(range(len(canaries)), min(len(canaries), number - len(chosen)))
    total = len(array) + number
    canary_at = np.array(chance.sample(range(total), number), dtype=np.int64)
    record_at = np.setdiff1d(np.arange(total), canary_at)
    known = canaries.records[chosen]
    mixed = np.empty((total, *shape), dtype=np.result_type(array, known))
    mixed[record_at], mixed[canary_at] = array, known
    return Mixed(
        records=mixed,
        record_at=record_at,
        canary_at=canary_at,
        expected=canaries.logits[chosen],
        tolerance=canaries.tolerance,
        scaling=canaries.scaling,
        shift=canaries.shift,
    )


def check(mixed: Mixed, logits: ArrayLike) -> tuple[NDArray[np.float64], Verdict]:
    """The answers to the caller's records, in their order, if every canary's is right.

    Raises IntegrityError if one is not; InputError for logits that are not of this batch.
    """
    answers = np.asarray(logits, dtype=np.float64)
    wanted = (len(mixed.records), mixed.expected.shape[1])
    if answers.shape != wanted:
        raise InputError(
            f"expected logits {wanted} of the mixed batch, got {answers.shape}: pass what the "
            "server answered, and canaries of the same model"
        )
    error = np.abs(answers[mixed.canary_at] - _blurred(answers[mixed.canary_at], mixed))
    wrong = int((~(error <= mixed.tolerance)).any(axis=1).sum())  # NaN is wrong as well
    verdict = Verdict(checked=len(mixed.canary_at), wrong=wrong)
    if wrong:
        raise IntegrityError(verdict)
    return answers[mixed.record_at], verdict


def _blurred(answers: NDArray[np.float64], mixed: Mixed) -> NDArray[np.float64]:
    """The known answers with the factor and sum, within bounds, that bring them nearest."""
    known, found = mixed.expected, answers
    if mixed.shift:
        known = known - known.mean(axis=1, keepdims=True)
        found = found - found.mean(axis=1, keepdims=True)
    power = np.maximum(np.sum(known**2, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    factor = np.sum(known * found, axis=1, keepdims=True) / power
    scaled = mixed.expected * np.clip(factor, 1 / mixed.scaling, mixed.scaling)
    rest = (answers - scaled).mean(axis=1, keepdims=True)
    return np.asarray(scaled + np.clip(rest, -mixed.shift, mixed.shift), dtype=np.float64)


def predict_with_canaries(
    client: Predictor,
    records: ArrayLike,
    canaries: Canaries,
    *,
    share: float,
    rng: random.Random | None = None,
) -> tuple[CheckedPrediction, Verdict]:
    """``client.predict`` on ``records``, or one record, with ``share`` of what is sent canaries.

    Raises what :func:`mix`, ``client.predict`` and :func:`check` raise.
    """
    array = np.asarray(records)
    if array.shape == canaries.records.shape[1:]:
        array = array[None]
    mixed = mix(array, canaries, share=share, rng=rng)
    logits, verdict = check(mixed, client.predict(mixed.records).logits)
    return CheckedPrediction(logits=logits, labels=np.argmax(logits, axis=1)), verdict


def detection_probability(canaries_per_query: int, rate: float) -> float:
    """How often a server that falsifies each record at ``rate`` is caught, 1 − (1 − rate)^k."""
    _expect(canaries_per_query >= 0, "a number of canaries", canaries_per_query, "count from 0")
    _expect(0 <= rate <= 1, "a rate", rate, "give a share from 0 to 1")
    if rate == 1:
        return float(canaries_per_query > 0)
    return -math.expm1(canaries_per_query * math.log1p(-rate))


def hypergeometric_detection(total: int, canaries: int, corrupted: int) -> float:
    """How often a canary is among ``corrupted`` of ``total`` records, ``canaries`` included."""
    _expect(0 <= canaries <= total, f"0 to {total} canaries", canaries, "count those sent")
    _expect(0 <= corrupted <= total, f"0 to {total} corrupted", corrupted, "count those sent")
    if canaries + corrupted > total:
        return 1.0
    fewer, more = sorted((canaries, corrupted))
    unseen = math.fsum(math.log1p(-more / (total - i)) for i in range(fewer))
    return -math.expm1(unseen)


def canaries_needed(rate: float, probability: float) -> int:
    """Fewest canaries that catch a server that falsifies at ``rate`` with ``probability``."""
    _expect(0 < rate <= 1, "a rate", rate, "give a share above 0, at most 1")
    _expect(0 < probability < 1, "a probability", probability, "certainty takes every record")
    if rate == 1:
        return 1
    count = max(1, math.floor(math.log1p(-probability) / math.log1p(-rate)) - 1)
    while detection_probability(count, rate) < probability:
        count += 1
    return count


def _count(records: int, share: float | None, count: int | None) -> int:
    if (share is None) == (count is None):
        raise ParameterError("expected either share or count of canaries: give exactly one")
    if count is not None:
        _expect(count >= 1, "at least 1 canary", count, "without one nothing is checked")
        return count
    assert share is not None
    _expect(0 < share < 1, "a share of canaries", share, "give one between 0 and 1")
    # Less a trifle, so that a rounding error does not cost a canary.
    return max(1, math.ceil(records * share / (1 - share) - 1e-9))


def _expect(right: bool, what: str, got: float, way_out: str) -> None:
    if not right:
        raise ParameterError(f"expected {what}, got {got}: {way_out}")
