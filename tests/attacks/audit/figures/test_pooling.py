"""Rows of the report: pooled over targets, paired between twins."""

from __future__ import annotations

import numpy as np
import pytest

from attacks.audit.bench.trial import Trial
from attacks.audit.document.records import DONE, FAILED, REFUSED, is_significant
from attacks.audit.figures.comparison import compared_twins
from attacks.audit.figures.pooling import pool, pool_twins
from attacks.audit.figures.resampling import resample_twins
from attacks.audit.sections.blind import judge_blind
from attacks.core.intervals import clopper_pearson
from attacks.core.oracle import Spent
from attacks.core.roc import auc
from attacks.errors import DataSplitError, TooFewRecordsError
from attacks.membership.outcome import MembershipScores

MEMBERS = np.arange(300) % 2 == 0


def guessing(rng: np.random.Generator, shift: float) -> Trial:
    scored = MembershipScores(
        scores=rng.normal(0, 1, len(MEMBERS)) + shift * MEMBERS, is_member=MEMBERS
    )
    return Trial(
        status=DONE,
        primary="auc",
        metrics={"auc": auc(scored.scores, MEMBERS)},
        spent=Spent(records=300, requests=1),
        notes=("no figure at 0.01 FPR: too few", "kept"),
    ).with_scores(scored)


def stealing(hits: int) -> Trial:
    return Trial(
        status=DONE, primary="fidelity_test", metrics={"fidelity_test": clopper_pearson(hits, 100)}
    )


def test_every_twin_is_compared_with_the_next_and_with_the_last() -> None:
    assert compared_twins(("a", "b", "c", "d")) == (
        ("a", "b"),
        ("b", "c"),
        ("c", "d"),
        ("a", "d"),
        ("b", "d"),
    )
    assert compared_twins(("a", "b")) == (("a", "b"),)
    assert compared_twins(("a",)) == ()


def test_membership_is_paired_on_the_same_resamples() -> None:
    rng = np.random.default_rng(0)
    same = {target: guessing(rng, 1.0) for target in (0, 2, 4)}
    weaker = {target: guessing(rng, 0.0) for target in (0, 2, 4)}
    pairs = [("clear", "served"), ("other", "served")]
    by_twin = {"clear": same, "served": dict(same), "other": weaker}
    cells, found = pool_twins(by_twin, pairs, rng)
    unchanged = found["clear", "served"]["auc"]
    assert unchanged.value == unchanged.low == unchanged.high == 0.0
    assert found["other", "served"]["auc"].low > 0.1
    assert is_significant(found["other", "served"]["auc"])
    # 450 non-members support 1 % together, where 150 did not.
    assert "tpr_at_1pct" in cells["clear"].metrics and "tpr_at_1pct" in found["clear", "served"]
    assert not any("0.01 FPR" in note for note in cells["clear"].notes)
    assert any(note.startswith("no figure at 0.001") for note in cells["clear"].notes)
    assert "kept" in cells["clear"].notes and cells["clear"].spent.records == 300
    low, high = cells["clear"].metrics["auc"].low, cells["clear"].metrics["auc"].high
    assert low < 0.76 < high  # Φ(1/√2), where the truth lies
    assert cells["clear"].curves["roc"].x[0] < 0.01


@pytest.mark.slow
def test_resamples_cover_the_truth() -> None:
    # 40 draws; at 95 % or more (this bootstrap errs on the wide side) P(fewer than 33) < 1e-3.
    hits = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scored = [guessing(rng, 0.0).scored for _ in range(3)]
        found = judge_blind([each for each in scored if each is not None], rng)
        hits += found.auc.low <= 0.5 <= found.auc.high
    assert hits >= 33


def test_a_split_that_leaks_is_flagged() -> None:
    rng = np.random.default_rng(0)
    leaking = [each for each in (guessing(rng, 0.7).scored for _ in range(3)) if each is not None]
    verdict = judge_blind(leaking, rng)
    assert not verdict.holds and "the split leaks" in verdict.note
    assert not judge_blind(leaking[:1], rng).holds


def test_one_target_is_compared_over_its_records() -> None:
    rng = np.random.default_rng(3)
    _, found = pool_twins(
        {"a": {0: guessing(rng, 0.0)}, "b": {0: guessing(rng, 2.0)}}, [("a", "b")], rng
    )
    assert found["a", "b"]["auc"].low > 0.2
    assert "one target" in found["a", "b"]["auc"].method


def test_twins_with_other_members_are_never_compared() -> None:
    scored = guessing(np.random.default_rng(0), 0.0).scored
    assert scored is not None
    other = MembershipScores(scores=scored.scores, is_member=~scored.is_member)
    rng = np.random.default_rng(0)
    with pytest.raises(DataSplitError, match="same members"):
        resample_twins({"a": [scored, scored], "b": [other, other]}, rng)
    with pytest.raises(TooFewRecordsError):
        resample_twins({"a": [scored]}, rng)


def test_extraction_is_paired_by_target() -> None:
    before = {0: stealing(50), 2: stealing(60), 4: stealing(70)}
    after = {0: stealing(71), 2: stealing(79), 4: stealing(90)}
    cells, found = pool_twins({"a": before, "b": after}, [("a", "b")], np.random.default_rng(0))
    difference = found["a", "b"]["fidelity_test"]
    assert difference.value == pytest.approx(0.2) and 0.15 < difference.low
    # Unpaired, the two intervals overlap.
    assert cells["a"].metrics["fidelity_test"].high > cells["b"].metrics["fidelity_test"].low


def test_missing_cells_are_told_not_dropped() -> None:
    refused = Trial(status=REFUSED, reason="the minimum is 500")
    failed = Trial(status=FAILED, reason="it broke")
    rng = np.random.default_rng(0)
    cells, found = pool_twins(
        {
            "a": {0: stealing(50), 2: stealing(60)},
            "b": {0: refused, 2: refused},
            "c": {0: stealing(50), 2: failed},
        },
        [("a", "b"), ("a", "c")],
        rng,
    )
    assert (cells["b"].status, cells["b"].reason) == (REFUSED, "the minimum is 500")
    assert cells["c"].status == DONE and "1 of 2 targets are missing: it broke" in cells["c"].notes
    assert list(found) == [("a", "c")]
    assert pool([refused, failed]).status == FAILED
