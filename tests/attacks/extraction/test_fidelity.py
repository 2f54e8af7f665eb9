"""Judging stolen models, against figures worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from attacks.core.intervals import clopper_pearson
from attacks.core.oracle import Answer, MeteredOracle, OracleInfo, softmax
from attacks.core.records import Records
from attacks.errors import BadAnswerError, TooFewRecordsError
from attacks.extraction.fidelity import fidelity_curve, judge
from attacks.extraction.setting import ExtractionData, ReferenceAnswers
from attacks.extraction.tramer.linear import LinearModel

TARGET = LinearModel(weights=np.array([[1.0, -1.0], [0.5, 0.0]]), bias=np.array([0.1, 0.0]))


class LinearOracle(MeteredOracle):
    """TARGET's answers, of the kinds named."""

    def __init__(self, *answers: str) -> None:
        super().__init__(
            OracleInfo(
                name="linear",
                kind="plaintext",
                input_shape=(2,),
                classes=2,
                low=-2.0,
                high=1.0,
                answers=frozenset({*answers, "labels"}),
            )
        )

    def _answer(self, records: NDArray[np.float64]) -> Answer:
        logits = TARGET.scores(records)
        return Answer(
            labels=logits.argmax(axis=1).astype(np.int64),
            logits=logits if "logits" in self.info.answers else None,
            probabilities=softmax(logits) if "probabilities" in self.info.answers else None,
        )


def data_for(*answers: str, tests: int = 40) -> ExtractionData:
    inputs = np.random.default_rng(0).uniform(-2, 1, (tests, 2))
    wrong_for_the_first = TARGET.scores(inputs).argmax(axis=1)
    wrong_for_the_first[:1] = 1 - wrong_for_the_first[:1]
    return ExtractionData(
        seeds=Records(inputs=np.zeros((0, 2)), labels=np.zeros(0, dtype=np.int64)),
        pool=np.zeros((0, 2)),
        test=Records(inputs=inputs, labels=wrong_for_the_first.astype(np.int64)),
        reference=LinearOracle(*answers),
    )


def shifted(by: float) -> LinearModel:
    """The target with every logit higher by the same amount."""
    return LinearModel(weights=TARGET.weights, bias=TARGET.bias + by)


def test_a_perfect_copy_agrees_everywhere_and_errs_with_the_target() -> None:
    verdict = judge(TARGET, data_for("logits"), np.random.default_rng(1), uniform_records=500)
    assert verdict.fidelity_test == clopper_pearson(40, 40)
    assert verdict.fidelity_uniform == clopper_pearson(500, 500)
    assert verdict.accuracy == clopper_pearson(39, 40)
    assert verdict.total_variation_test is not None and verdict.max_logit_error is not None
    assert verdict.total_variation_test.value == 0 and verdict.max_logit_error.value == 0
    # Zero error counts as the spacing of float64, not as infinitely many bits.
    assert verdict.logit_error_bits is not None and 45 < verdict.logit_error_bits.value < 60


def test_logit_error_is_the_largest_and_can_leave_out_a_constant() -> None:
    data = data_for("logits")
    plain = judge(shifted(0.25), data, np.random.default_rng(1), uniform_records=10)
    assert plain.max_logit_error is not None and plain.logit_error_bits is not None
    assert plain.max_logit_error.value == pytest.approx(0.25, abs=1e-12)
    assert plain.logit_error_bits.value == pytest.approx(2, abs=1e-9)
    assert plain.fidelity_uniform.value == 1
    free = judge(
        shifted(0.25), data, np.random.default_rng(1), uniform_records=10, up_to_constant=True
    )
    assert free.max_logit_error is not None
    assert free.max_logit_error.value < 1e-12 and "constant" in free.max_logit_error.method


def test_total_variation_is_half_the_distance_of_the_probabilities() -> None:
    data = data_for("probabilities")
    stolen = LinearModel(weights=np.zeros((2, 2)), bias=np.zeros(2))
    verdict = judge(stolen, data, np.random.default_rng(1), uniform_records=50)
    expected = np.abs(softmax(TARGET.scores(data.test.inputs))[:, 0] - 0.5).mean()
    assert verdict.total_variation_test is not None
    assert verdict.total_variation_test.value == pytest.approx(expected, rel=1e-12)
    assert verdict.total_variation_test.low <= expected <= verdict.total_variation_test.high
    assert verdict.max_logit_error is None


def test_labels_allow_agreement_only() -> None:
    verdict = judge(TARGET, data_for(), np.random.default_rng(1), uniform_records=50)
    assert set(verdict.metrics()) == {"accuracy", "fidelity_test", "fidelity_uniform"}


def test_reference_answers_are_paid_once_and_lie_in_the_box() -> None:
    data = data_for("logits")
    answers = ReferenceAnswers.of(data, np.random.default_rng(2), 300)
    assert answers.uniform_inputs.min() >= -2 and answers.uniform_inputs.max() <= 1
    assert answers.uniform_inputs.min() < -1.9 and answers.uniform_inputs.max() > 0.9
    paid = data.reference.ledger.spent.records
    assert paid == 340
    judge(TARGET, data, np.random.default_rng(3), reference=answers)
    shared = ExtractionData(
        seeds=data.seeds, pool=data.pool, test=data.test, reference=data.reference, answers=answers
    )
    judge(TARGET, shared, np.random.default_rng(3))
    assert data.reference.ledger.spent.records == paid


def test_scores_that_are_not_finite_are_refused() -> None:
    broken = LinearModel(weights=TARGET.weights, bias=np.array([math.nan, 0.0]))
    with pytest.raises(BadAnswerError, match="not finite"):
        judge(broken, data_for("logits"), np.random.default_rng(1), uniform_records=5)


def test_no_test_records_is_refused() -> None:
    data = data_for("logits")
    empty = ExtractionData(
        seeds=data.seeds, pool=data.pool, test=data.test.select(slice(0)), reference=data.reference
    )
    with pytest.raises(TooFewRecordsError):
        judge(TARGET, empty, np.random.default_rng(1))


def test_curve_keeps_points_in_order() -> None:
    curve = fidelity_curve([(10, clopper_pearson(1, 2)), (20, clopper_pearson(2, 2))])
    assert curve.x == (10.0, 20.0) and curve.y == (0.5, 1.0)
    assert all(
        low <= y <= high for low, y, high in zip(curve.low, curve.y, curve.high, strict=True)
    )
