"""How good a stolen model is: accuracy, fidelity and functional equivalence, three numbers.

    accuracy        how often it is right about the world
    fidelity        how often it says what the target says: 1 − R_test, 1 − R_unif
    equivalence     how far its logits are from the target's, at worst, also in bits

The names R_test and R_unif are those of Tramèr et al. 2016, section 2; functional equivalence
is set apart from fidelity by Jagielski et al. 2020, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from attacks.core.arrays import Floats
from attacks.core.intervals import CONFIDENCE, Estimate, clopper_pearson, exact
from attacks.core.oracle import Answer, softmax
from attacks.core.result import Curve
from attacks.errors import BadAnswerError
from attacks.extraction.setting import (
    UNIFORM_RECORDS,
    ExtractionData,
    ReferenceAnswers,
    StolenModel,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The figures of one stolen model; those that the target's answers do not allow are None.

    ``total_variation_*``: mean distance of the probability vectors, ½ Σ|p − q|.
    ``max_logit_error``: the largest absolute difference of logits over test and uniform inputs,
    a lower bound of the largest anywhere; its ``method`` says whether a constant per record was
    taken out first. ``logit_error_bits``: −log2 of it, more is worse for the owner.
    """

    accuracy: Estimate
    fidelity_test: Estimate
    fidelity_uniform: Estimate
    total_variation_test: Estimate | None = None
    total_variation_uniform: Estimate | None = None
    max_logit_error: Estimate | None = None
    logit_error_bits: Estimate | None = None

    def metrics(self) -> dict[str, Estimate]:
        """The figures there are, by name."""
        named = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: estimate for name, estimate in named.items() if estimate is not None}


def judge(
    stolen: StolenModel,
    data: ExtractionData,
    rng: np.random.Generator,
    *,
    uniform_records: int = UNIFORM_RECORDS,
    up_to_constant: bool = False,
    reference: ReferenceAnswers | None = None,
) -> Judgement:
    """Compare ``stolen`` with the target.

    ``up_to_constant``: the attack learned softmax(logits) only, so the logits are compared after
    their mean difference over the classes is taken out, record by record. ``reference``: the
    target's answers if they were asked before, here or as ``data.answers``; ``rng`` and
    ``uniform_records`` are unused then.
    Raises BadAnswerError if the stolen model's scores are not finite.
    """
    if reference is None:
        reference = data.answers
    if reference is None:
        reference = ReferenceAnswers.of(data, rng, uniform_records)
    on_test = _checked_scores(stolen, reference.test_inputs, reference.test)
    on_uniform = _checked_scores(stolen, reference.uniform_inputs, reference.uniform)
    error, bits = _logit_error(
        ((on_test, reference.test), (on_uniform, reference.uniform)), up_to_constant
    )
    return Judgement(
        accuracy=_agreement(on_test, reference.test_truth),
        fidelity_test=_agreement(on_test, reference.test.labels),
        fidelity_uniform=_agreement(on_uniform, reference.uniform.labels),
        total_variation_test=_total_variation(on_test, reference.test),
        total_variation_uniform=_total_variation(on_uniform, reference.uniform),
        max_logit_error=error,
        logit_error_bits=bits,
    )


def fidelity(stolen: StolenModel, inputs: Floats, answer: Answer) -> Estimate:
    """How often ``stolen`` gives the label of ``answer`` on ``inputs``, (B, *input_shape)."""
    return _agreement(_checked_scores(stolen, inputs, answer), answer.labels)


def fidelity_curve(points: Sequence[tuple[int, Estimate]]) -> Curve:
    """The curve "fidelity": records queried against fidelity on the test records."""
    return Curve.of(
        (queries for queries, _ in points),
        (estimate for _, estimate in points),
        x_label="records queried",
        y_label="fidelity",
    )


def _checked_scores(stolen: StolenModel, inputs: Floats, answer: Answer) -> Floats:
    scores = np.asarray(stolen.scores(inputs), dtype=np.float64)
    if scores.ndim != 2 or len(scores) != len(answer) or not np.isfinite(scores).all():
        raise BadAnswerError(
            f"a stolen model gives finite scores of shape ({len(answer)}, classes), got shape "
            f"{scores.shape} with {int(np.count_nonzero(~np.isfinite(scores)))} not finite"
        )
    return scores


def _agreement(scores: Floats, labels: NDArray[np.int64]) -> Estimate:
    return clopper_pearson(int(np.count_nonzero(scores.argmax(axis=1) == labels)), len(labels))


def _total_variation(scores: Floats, answer: Answer) -> Estimate | None:
    if answer.logits is None and answer.probabilities is None:
        return None
    distances = 0.5 * np.abs(softmax(scores) - answer.require_probabilities()).sum(axis=1)  # (B,)
    return _mean(distances)


def _mean(values: Floats) -> Estimate:
    """Mean of values that are at least zero, with Student's interval."""
    value, count = float(values.mean()), len(values)
    half = 0.0
    if count > 1:
        quantile = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1))
        half = quantile * float(values.std(ddof=1)) / math.sqrt(count)
    return Estimate(
        value=value, low=max(0.0, value - half), high=value + half, method="Student", count=count
    )


def _logit_error(
    pairs: Sequence[tuple[Floats, Answer]], up_to_constant: bool
) -> tuple[Estimate | None, Estimate | None]:
    error, largest, count = 0.0, 0.0, 0
    for scores, answer in pairs:
        if answer.logits is None:
            return None, None
        difference = scores - answer.logits
        if up_to_constant:
            difference = difference - difference.mean(axis=1, keepdims=True)
        error = max(error, float(np.abs(difference).max()))
        largest = max(largest, float(np.abs(answer.logits).max()))
        count += len(scores)
    # Below the spacing of float64 at the largest logit there is nothing to tell apart.
    bits = -math.log2(max(error, float(np.spacing(largest))))
    method = "maximum, up to a constant per record" if up_to_constant else "maximum"
    return exact(error, count=count, method=method), exact(bits, count=count, method=method)
