"""Findings follow from figures by stated rules."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from attacks.audit.document.records import (
    DONE,
    REFUSED,
    SEVERITIES,
    AttackRecord,
    BlindRecord,
    Finding,
    PairedDifference,
    PooledTrial,
)
from attacks.audit.run import findings_of
from attacks.audit.sections.extraction import enough
from attacks.core.entry import EXTRACTION, MEMBERSHIP
from attacks.core.intervals import Estimate, clopper_pearson
from attacks.core.oracle import Spent
from attacks.core.result import Curve
from attacks.oracles.twins import ENCRYPTED, POLYNOMIAL, RELU
from tests.attacks.audit import records

HOLDS = BlindRecord(auc=clopper_pearson(50, 100), holds=True, note="no better than a coin")


def estimate(low: float, high: float) -> Estimate:
    return Estimate(value=(low + high) / 2, low=low, high=high, method="test", count=2)


def stolen(low: float, high: float, baseline: float = 0.5) -> PooledTrial:
    return PooledTrial(
        status=DONE,
        metrics={"fidelity_test": estimate(low, high), "logit_error_bits": estimate(18, 18)},
        baseline={"fidelity_test": estimate(baseline - 0.05, baseline + 0.05)},
        spent=Spent(records=3000, requests=1),
    )


def guessed(low: float, high: float, rate: tuple[float, float] | None = None) -> PooledTrial:
    metrics = {"auc": estimate(low, high)}
    if rate is not None:
        metrics["tpr_at_1pct"] = estimate(*rate)
    return PooledTrial(status=DONE, metrics=metrics)


def row(
    cell: PooledTrial,
    family: str,
    name: str = "attack",
    differences: Sequence[PairedDifference] = (),
) -> AttackRecord:
    primary = "auc" if family == MEMBERSHIP else "fidelity_test"
    cells = {ENCRYPTED: cell}
    return records.attack(name, family, cells, primary=primary, paired=differences)


def difference(before: str, after: str, low: float, high: float) -> PairedDifference:
    return records.difference(before, after, "auc", estimate(low, high))


def judged(rows: Sequence[AttackRecord], blind: BlindRecord | None = HOLDS) -> tuple[Finding, ...]:
    return findings_of(records.record(attacks=tuple(rows), blind=blind, notes=("a note",)))


def severity(found: Sequence[Finding], words: str) -> str:
    (only,) = [finding for finding in found if words in finding.title]
    return only.severity


@pytest.mark.parametrize(
    ("cell", "words", "expected"),
    [
        (stolen(0.96, 1.0), "can copy", "high"),
        (stolen(0.94, 1.0), "can imitate", "medium"),
        (stolen(0.96, 1.0, baseline=0.95), "No extraction", "ok"),
        (stolen(0.4, 0.6), "No extraction", "ok"),
    ],
)
def test_extraction_by_fidelity_above_the_baseline(
    cell: PooledTrial, words: str, expected: str
) -> None:
    assert severity(judged([row(cell, EXTRACTION)]), words) == expected


@pytest.mark.parametrize(
    ("cell", "words", "expected"),
    [
        (guessed(0.61, 0.7), "who was in", "high"),
        (guessed(0.51, 0.55), "better than by chance", "medium"),
        (guessed(0.51, 0.55, (0.06, 0.1)), "who was in", "high"),
        (guessed(0.51, 0.55, (0.01, 0.1)), "better than by chance", "medium"),
        (guessed(0.49, 0.55), "better than a coin", "ok"),
    ],
)
def test_membership_by_the_lower_ends(cell: PooledTrial, words: str, expected: str) -> None:
    assert severity(judged([row(cell, MEMBERSHIP)]), words) == expected


def test_an_exact_copy_of_an_easy_task_is_a_copy() -> None:
    cell = stolen(0.98, 1.0, baseline=0.97)
    assert severity(judged([row(cell, EXTRACTION)]), "No extraction") == "ok"
    exact = PooledTrial(
        status=DONE,
        metrics={**cell.metrics, "fidelity_uniform": estimate(0.99, 1.0)},
        baseline={**cell.baseline, "fidelity_uniform": estimate(0.7, 0.8)},
        spent=cell.spent,
    )
    assert severity(judged([row(exact, EXTRACTION)]), "can copy") == "high"


def test_the_strongest_attack_speaks() -> None:
    found = judged(
        [row(guessed(0.4, 0.9), MEMBERSHIP, "wide"), row(guessed(0.62, 0.7), MEMBERSHIP, "sure")]
    )
    (only,) = [finding for finding in found if "who was in" in finding.title]
    assert "sure" in only.text


def test_a_leaking_split_comes_first_and_voids_the_figures() -> None:
    leaks = BlindRecord(auc=clopper_pearson(90, 100), holds=False, note="the split leaks")
    found = judged([row(guessed(0.9, 0.95), MEMBERSHIP)], leaks)
    assert severity(found, "leaks by itself") == "high"
    assert any("measures the split" in finding.text for finding in found)


def test_what_encryption_changed_is_said_either_way() -> None:
    same = row(
        guessed(0.5, 0.6), MEMBERSHIP, differences=[difference(POLYNOMIAL, ENCRYPTED, -0.1, 0.1)]
    )
    assert severity(judged([same]), "changed nothing measurable about what") == "low"
    less = row(
        guessed(0.5, 0.6), MEMBERSHIP, differences=[difference(POLYNOMIAL, ENCRYPTED, -0.2, -0.1)]
    )
    (only,) = [f for f in judged([less]) if f.title == "Encryption changed some figures"]
    assert "-0.15 [-0.2, -0.1]" in only.text
    assert severity(judged([row(guessed(0.5, 0.6), MEMBERSHIP)]), "Nothing says") == "low"


@pytest.mark.parametrize(
    ("low", "high", "words", "expected"),
    [
        (0.1, 0.2, "more telling", "medium"),
        (-0.2, -0.1, "less telling", "ok"),
        (-0.1, 0.1, "changed nothing measurable about its training set", "ok"),
    ],
)
def test_what_the_replacement_changed(low: float, high: float, words: str, expected: str) -> None:
    changed = row(
        guessed(0.5, 0.6), MEMBERSHIP, differences=[difference(RELU, POLYNOMIAL, low, high)]
    )
    assert severity(judged([changed]), words) == expected


def test_refusals_are_no_evidence_of_safety() -> None:
    refused = PooledTrial(status=REFUSED, reason="it needs 500 queries")
    found = judged([row(refused, EXTRACTION), row(guessed(0.5, 0.6), MEMBERSHIP, "other")])
    (only,) = [finding for finding in found if "say nothing" in finding.title]
    assert "it needs 500 queries" in only.text and only.severity == "low"


def test_the_worst_comes_first() -> None:
    found = judged([row(stolen(0.96, 1.0), EXTRACTION), row(guessed(0.51, 0.55), MEMBERSHIP)])
    ranks = [SEVERITIES.index(finding.severity) for finding in found]
    assert ranks == sorted(ranks) and found[0].severity == "high"


def test_enough_is_read_off_the_curve() -> None:
    cell = stolen(0.96, 1.0)
    assert enough(cell) == 3000
    y = (0.5, 0.95, 1.0)
    curve = Curve(x=(100, 1500, 3000), y=y, low=y, high=y, x_label="x", y_label="y")
    assert enough(PooledTrial(status=DONE, curves={"fidelity": curve})) == 1500
