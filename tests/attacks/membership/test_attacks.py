"""Every membership attack: finds members where there is an effect, nobody where there is none."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from attacks.core.oracle import LABELS, Answer, softmax
from attacks.core.records import Records
from attacks.errors import (
    AbilityError,
    BadAnswerError,
    BudgetError,
    DataSplitError,
    ShadowError,
    TooFewRecordsError,
)
from attacks.membership.blind import BlindBaseline
from attacks.membership.label_only import LabelOnly
from attacks.membership.likelihood import RMIA, LiRAOffline, LiRAOnline
from attacks.membership.outcome import MembershipScores
from attacks.membership.pooling import paired_difference, pooled
from attacks.membership.setting import MembershipData, ShadowAnswers
from attacks.membership.shokri import ShokriAttack
from attacks.membership.thresholds import (
    ModifiedEntropy,
    YeomThreshold,
    best_threshold,
    gap_identity,
    modified_entropy,
)
from tests.attacks.membership.world import (
    FixedOracle,
    drawn_world,
    trained_target,
)

SCORED = [
    LiRAOnline(),
    LiRAOnline(fixed_variance=True),
    LiRAOffline(),
    LiRAOffline(fixed_variance=False),
    RMIA(),
    RMIA(offline_a=0.3, references=8),
    YeomThreshold(),
    ModifiedEntropy(),
    pytest.param(ShokriAttack(epochs=20), marks=pytest.mark.slow),
]
ALL = [*SCORED, LabelOnly(copies=3)]


def named(attack: Any) -> str:
    """The same in every process: a function's address in ``repr`` is not."""
    return re.sub(r"<function (\w+) at \w+>", r"\1", repr(attack))


@pytest.mark.parametrize("attack", ALL, ids=named)
def test_members_of_an_overfitted_network_are_found(attack: Any) -> None:
    oracle, data = trained_target(0)
    result = attack.run(oracle, data, np.random.default_rng(0))
    assert result.metrics["auc"].low > 0.5
    assert result.spent.records >= len(data.pool)
    assert result.threat_model == "malicious client"


@pytest.mark.parametrize("attack", SCORED, ids=named)
def test_nobody_is_found_where_membership_has_no_effect(attack: Any) -> None:
    rng = np.random.default_rng(4)
    values = []
    for _ in range(8):
        oracle, data = drawn_world(rng, effect=0.0)
        values.append(attack.run(oracle, data, rng).metrics["auc"].value)
    # 8 × 600 records: the standard error of the mean is 0.0083; 5 of them.
    assert abs(np.mean(values) - 0.5) < 0.042


def test_calibration_beats_a_global_threshold() -> None:
    rng = np.random.default_rng(5)
    oracle, data = drawn_world(rng, records=2000, effect=1.0)
    calibrated = LiRAOnline(fixed_variance=True).run(oracle, data, rng).metrics["auc"]
    universal = YeomThreshold().run(oracle, data, rng).metrics["auc"]
    assert calibrated.low > universal.high


def test_yeoms_identity_holds_exactly() -> None:
    for target in (0, 2, 4):
        oracle, data = trained_target(target)
        found = gap_identity(oracle, data)
        assert found.advantage == pytest.approx(found.generalisation_gap, abs=1e-15)
        assert found.generalisation_gap > 0.1


def test_thresholds_come_from_the_shadows_alone() -> None:
    oracle, data = trained_target(0)
    flipped = replace(data, is_member=~data.is_member)
    for attack in (YeomThreshold(), ModifiedEntropy(), LiRAOnline(), RMIA()):
        one = attack.scores(oracle, data, np.random.default_rng(0))
        two = attack.scores(oracle, flipped, np.random.default_rng(0))
        assert (one == two).all()


def test_best_threshold_separates_what_can_be_separated() -> None:
    scores = np.array([0.0, 1.0, 2.0, 10.0, 11.0])
    truth = np.array([False, False, False, True, True])
    threshold = best_threshold(scores, truth)
    assert ((scores > threshold) == truth).all()


def test_modified_entropy_written_out() -> None:
    logits = np.array([[1.0, 2.0, -1.0]])
    p = softmax(logits)[0]
    expected = -(1 - p[0]) * np.log(p[0]) - sum(p[i] * np.log(1 - p[i]) for i in (1, 2))
    assert modified_entropy(logits, np.array([0]))[0] == pytest.approx(expected)


@pytest.mark.parametrize("attack", SCORED, ids=named)
def test_scores_need_more_than_labels(attack: Any) -> None:
    _, data = drawn_world(np.random.default_rng(0))
    labels = FixedOracle(np.zeros((600, 2)), answers=frozenset({LABELS}))
    with pytest.raises(AbilityError, match="labels"):
        attack.run(labels, data, np.random.default_rng(0))
    assert labels.ledger.spent.records == 0


def test_rates_beyond_the_sample_are_left_out_with_a_reason() -> None:
    oracle, data = trained_target(0)
    result = LiRAOnline().run(oracle, data, np.random.default_rng(0))
    assert "tpr_at_10pct" in result.metrics and "tpr_at_1pct" not in result.metrics
    assert any("at least 368 are needed" in note for note in result.notes)


def test_an_answer_that_is_not_finite_is_an_error() -> None:
    class Broken(FixedOracle):
        def _answer(self, records: np.ndarray) -> Answer:
            answer = super()._answer(records)
            assert answer.logits is not None
            answer.logits[3, 0] = np.nan
            return answer

    _, data = drawn_world(np.random.default_rng(0))
    with pytest.raises(BadAnswerError, match="1 of 600 answers are not finite"):
        LiRAOnline().run(Broken(np.zeros((600, 2))), data, np.random.default_rng(0))


def test_shadows_of_another_architecture_are_refused() -> None:
    oracle, data = drawn_world(np.random.default_rng(0))
    logits = np.random.default_rng(1).normal(size=(16, 600, 3))
    wide = ShadowAnswers(logits=logits, is_member=data.shadows.is_member)
    with pytest.raises(ShadowError, match="3 classes"):
        LiRAOnline().run(oracle, replace(data, shadows=wide), np.random.default_rng(0))


def test_records_that_do_not_fit_the_target_are_refused() -> None:
    oracle, data = trained_target(0)
    square = Records(inputs=data.pool.inputs.reshape(-1, 8, 8), labels=data.pool.labels)
    with pytest.raises(DataSplitError, match="do not fit a target"):
        LiRAOnline().run(oracle, replace(data, pool=square), np.random.default_rng(0))


def test_a_pool_of_members_only_is_refused() -> None:
    _, data = drawn_world(np.random.default_rng(0))
    with pytest.raises(DataSplitError, match="both members and non-members"):
        replace(data, is_member=np.ones(600, dtype=bool))
    with pytest.raises(DataSplitError, match="do not fit memberships"):
        replace(data, is_member=data.is_member[:-1])


def test_diverged_shadows_are_refused() -> None:
    with pytest.raises(ShadowError, match="diverged"):
        ShadowAnswers(logits=np.full((2, 3, 2), np.nan), is_member=np.zeros((2, 3), dtype=bool))


def test_copies_of_a_shadow_are_refused() -> None:
    _, data = drawn_world(np.random.default_rng(0))
    stale = data.shadows.logits.copy()
    stale[3] = stale[5]
    with pytest.raises(ShadowError, match="1 of 16 shadow models answer exactly"):
        ShadowAnswers(logits=stale, is_member=data.shadows.is_member)


def test_a_threshold_set_on_a_shadow_attains_its_rate_on_the_target() -> None:
    rng = np.random.default_rng(12)
    rates = []
    for _ in range(6):
        oracle, data = drawn_world(rng, records=1000)
        result = LiRAOnline(fixed_variance=True).run(oracle, data, rng)
        rates.append(result.metrics["fpr_at_shadow_threshold"].value)
        # Only the target's own answers are paid for.
        assert result.spent.records == 1000
    # Means of 6 draws around 10 %: threshold and rate each err by about 1.3 % over 500 records.
    assert abs(np.mean(rates) - 0.1) < 0.03


def test_no_threshold_where_shadows_were_not_asked() -> None:
    oracle, data = trained_target(0)
    result = LabelOnly(copies=2).run(oracle, data, np.random.default_rng(0))
    assert "epsilon_lower_bound" not in result.metrics
    assert any("no threshold could be set" in note for note in result.notes)


def test_more_references_are_not_worse() -> None:
    rng = np.random.default_rng(6)
    oracle, data = drawn_world(rng, records=2000)
    one, all_of_them = (
        RMIA(offline_a=0.5, references=count).run(oracle, data, rng).metrics["auc"]
        for count in (1, 0)
    )
    assert all_of_them.high > one.value > 0.5


def test_rmia_needs_a_population() -> None:
    oracle, data = drawn_world(np.random.default_rng(0))
    empty = replace(
        data,
        population=data.population.select(slice(0, 0)),
        population_logits=data.population_logits[:, :0],
    )
    with pytest.raises(DataSplitError, match="population"):
        RMIA().run(oracle, empty, np.random.default_rng(0))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(BudgetError):
        LabelOnly(copies=0)
    with pytest.raises(ShadowError):
        RMIA(gamma=0.5)
    with pytest.raises(ShadowError, match="out-models"):
        RMIA(references=2)


def test_label_only_asks_what_it_says() -> None:
    oracle, data = trained_target(0)
    result = LabelOnly(copies=4).run(oracle, data, np.random.default_rng(0))
    assert result.spent.records == 5 * len(data.pool)


def blind_verdicts(leak: float) -> list[bool]:
    verdicts = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        is_member = rng.permutation(np.repeat([True, False], 300))
        inputs = rng.normal(size=(600, 12)) + leak * is_member[:, None]
        pool = Records(inputs=inputs, labels=rng.integers(0, 2, 600))
        verdicts.append(BlindBaseline(trees=50).judge(pool, is_member, rng).holds)
    return verdicts


def test_the_blind_baseline_flags_a_split_that_leaks() -> None:
    assert not any(blind_verdicts(leak=0.3))


def test_the_blind_baseline_lets_a_fair_split_pass() -> None:
    # Each fair split is flagged with probability 0.025: four or more of ten, 1 in 10,000.
    assert sum(blind_verdicts(leak=0.0)) >= 7


def test_the_blind_baseline_needs_records() -> None:
    pool = Records(inputs=np.zeros((20, 2)), labels=np.zeros(20, dtype=np.int64))
    with pytest.raises(DataSplitError, match="about 20 members"):
        BlindBaseline().judge(pool, np.arange(20) % 2 == 0, np.random.default_rng(0))


def several(effect: float, seed: int) -> list[MembershipScores]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(4):
        oracle, data = drawn_world(rng, records=500, effect=effect)
        found.append(LiRAOnline().run(oracle, data, rng).artifact)
    return found


def test_pooling_supports_rates_that_one_model_does_not() -> None:
    targets = several(1.0, 0)
    metrics, notes = pooled(targets, np.random.default_rng(0))
    assert "tpr_at_1pct" in metrics and "tpr_at_0.1pct" not in metrics
    assert any("3688" in note for note in notes)
    assert metrics["auc"].low < metrics["auc"].value < metrics["auc"].high
    assert metrics["auc"].count == 4


def test_pooling_needs_two_targets_of_one_size() -> None:
    targets = several(1.0, 0)
    with pytest.raises(TooFewRecordsError, match="at least 2"):
        pooled(targets[:1], np.random.default_rng(0))
    short = MembershipScores(scores=np.array([0.0, 1.0]), is_member=np.array([True, False]))
    with pytest.raises(DataSplitError, match="different size"):
        pooled([targets[0], short], np.random.default_rng(0))


def test_pairing_is_narrower_than_two_separate_intervals() -> None:
    first = several(1.0, 7)
    rng = np.random.default_rng(8)
    second = [
        MembershipScores(
            scores=t.scores + rng.normal(0, 1e-3, len(t.scores)), is_member=t.is_member
        )
        for t in first
    ]
    difference = paired_difference(first, second, "auc", rng)
    alone = pooled(first, rng)[0]["auc"]
    assert difference.low <= 0 <= difference.high
    assert difference.high - difference.low < 0.2 * (alone.high - alone.low)


def test_pairing_refuses_other_members_and_unknown_figures() -> None:
    first, other = several(1.0, 0), several(1.0, 1)
    with pytest.raises(DataSplitError, match="same members"):
        paired_difference(first, other, "auc", np.random.default_rng(0))
    with pytest.raises(DataSplitError, match="no membership figure"):
        paired_difference(first, first, "accuracy", np.random.default_rng(0))


def test_data_classes_check_themselves() -> None:
    _, data = drawn_world(np.random.default_rng(0))
    with pytest.raises(DataSplitError, match="population answers"):
        MembershipData(
            pool=data.pool,
            is_member=data.is_member,
            shadows=data.shadows,
            population=data.population,
            population_logits=data.population_logits[:, 1:],
        )


def test_sides_of_different_size_are_refused() -> None:
    _, data = drawn_world(np.random.default_rng(0))
    with pytest.raises(DataSplitError, match="200 members and 400 non-members"):
        replace(data, is_member=np.arange(600) < 200)
