"""Label flips and backdoors: what they change, what they leave, and what they refuse."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attacks.core.records import Records
from attacks.errors import DataSplitError
from attacks.poisoning.backdoor import Backdoor, Trigger, corner_patch, quiet_trigger
from attacks.poisoning.filtering import InFeatures, filtered
from attacks.poisoning.flipping import LabelFlipping
from attacks.poisoning.networks import Network, NetworkLearner, last_linear, pooled_sets
from attacks.poisoning.outcome import SUCCESS, Crafted, paired_change
from attacks.poisoning.setting import PoisonBudget, PoisonedSet, PoisoningData
from attacks.training.stack import TrainingConfig

CLASSES, FEATURES = 3, 12


def blobs(count: int, seed: int) -> Records:
    """Three classes apart from each other on four features each; nothing reaches 1."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    inputs = 0.1 + 0.1 * rng.uniform(size=(count, FEATURES))
    for label in range(CLASSES):
        rows = labels == label
        inputs[rows, 3 * label : 3 * label + 3] += 0.4 * rng.uniform(size=(rows.sum(), 3))
    return Records(inputs=inputs, labels=labels.astype(np.int64))


def data() -> PoisoningData:
    return PoisoningData(
        train=blobs(300, 0), test=blobs(150, 1), low=0.0, high=1.0, classes=CLASSES
    )


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 24), nn.ReLU(), nn.Linear(24, CLASSES))


LEARNER = NetworkLearner(
    architecture=network,
    config=TrainingConfig(epochs=20, batch=30, rate=0.02),
    description="a small network",
)
TRIGGER = Trigger(positions=(10, 11), value=1.0)


def test_a_backdoor_opens_and_leaves_the_rest_alone() -> None:
    attack = Backdoor(trigger=TRIGGER, target=0, budget=PoisonBudget(fraction=0.1))
    result = attack.run(LEARNER, data(), np.random.default_rng(2))
    assert result.threat_model == "training-time adversary" and result.spent.records == 0
    assert result.metrics[SUCCESS].low > 0.9 > 0.2 > result.baseline[SUCCESS].high
    assert result.metrics["accuracy_change"].low > -0.05
    assert result.metrics[f"{SUCCESS}_change"].value == pytest.approx(
        result.metrics[SUCCESS].value - result.baseline[SUCCESS].value
    )


def test_what_a_backdoor_crafts() -> None:
    given_data = data()
    attack = Backdoor(
        trigger=TRIGGER, target=1, budget=PoisonBudget(fraction=0.1), parts=2, covers=0.5
    )
    crafted = attack.craft(given_data, np.random.default_rng(3))
    training, train = crafted.training.records, given_data.train
    dirty = crafted.training.is_poison
    assert len(training) == len(train) and dirty.sum() == 30 + 15
    assert (training.inputs[~dirty] == train.inputs[~dirty]).all()
    assert (training.labels[~dirty] == train.labels[~dirty]).all()
    mislabelled = training.labels != train.labels
    assert mislabelled.sum() == 30 and (training.labels[mislabelled] == 1).all()
    # Each carries one part, what is asked carries all of it.
    assert set((training.inputs[dirty][:, [10, 11]] == 1.0).sum(axis=1)) == {1}
    assert (crafted.probes.inputs[:, [10, 11]] == 1.0).all()
    assert len(crafted.probes) == (given_data.test.labels != 1).sum()


def test_flipped_labels_draw_their_class_over() -> None:
    attack = LabelFlipping(budget=PoisonBudget(fraction=0.28), source=2, target=0)
    crafted = attack.craft(data(), np.random.default_rng(4))
    assert (data().train.labels[crafted.training.is_poison] == 2).all()
    assert crafted.training.is_poison.sum() == 84
    result = attack.run(LEARNER, data(), np.random.default_rng(4))
    assert result.metrics[SUCCESS].low > 0.5 and result.baseline[SUCCESS].value < 0.05


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: LabelFlipping(budget=PoisonBudget(fraction=0.1), source=1, target=1), "different"),
        (lambda: PoisonBudget(fraction=1.5), "share of the training set"),
        (lambda: Trigger(positions=(), value=1.0), "one position"),
        (lambda: Trigger(positions=(1, 1), value=1.0), "once"),
        (lambda: TRIGGER.parts(3), "1 to 2 parts"),
        (lambda: TRIGGER.stamp(np.zeros((1, 4))), "does not fit"),
        (lambda: corner_patch((28,), side=2, value=1.0), "does not fit"),
        (
            lambda: Backdoor(trigger=TRIGGER, target=9, budget=PoisonBudget(fraction=0.1)).craft(
                data(), np.random.default_rng(0)
            ),
            "class 9 among 3",
        ),
        (
            lambda: Backdoor(trigger=TRIGGER, target=0, budget=PoisonBudget(fraction=0.9)).craft(
                data(), np.random.default_rng(0)
            ),
            "lower the budget",
        ),
        (
            lambda: LabelFlipping(budget=PoisonBudget(fraction=0.5), source=1, target=0).craft(
                data(), np.random.default_rng(0)
            ),
            "lower the budget",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(attempt: object, message: str) -> None:
    with pytest.raises(DataSplitError, match=message):
        attempt()  # type: ignore[operator]


def test_a_patch_is_in_the_corner() -> None:
    stamped = corner_patch((2, 4, 4), side=2, value=1.0).stamp(np.zeros((1, 2, 4, 4)))
    assert stamped.sum() == 8 and (stamped[0, :, 2:, 2:] == 1).all()


def test_a_quiet_trigger_is_where_nothing_happens() -> None:
    train = blobs(60, 5)
    assert quiet_trigger(train, count=3, value=1.0).positions == (9, 10, 11)


def test_nothing_to_probe_is_refused() -> None:
    records = blobs(30, 6)
    poisoned = PoisonedSet(records=records, is_poison=np.zeros(30, dtype=np.bool_))
    with pytest.raises(DataSplitError, match="nothing is left to ask"):
        Crafted(training=poisoned, probes=records.select(slice(0, 0)))


@given(outcomes=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_a_paired_change_is_the_difference_of_shares(outcomes: list[tuple[bool, bool]]) -> None:
    before, after = (np.array(side) for side in zip(*outcomes, strict=True))
    change = paired_change(before, after)
    assert change.value == pytest.approx(after.mean() - before.mean())
    assert -1 <= change.low <= change.value <= change.high <= 1
    mirrored = paired_change(after, before)
    assert (mirrored.low, mirrored.high) == pytest.approx((-change.high, -change.low))


def test_paired_changes_hold_what_they_estimate() -> None:
    """The interval misses a true change of 0.1 in about one draw of twenty."""
    rng = np.random.default_rng(7)
    missed = 0
    for _ in range(400):
        before = rng.uniform(size=150) < 0.6
        after = np.where(before, rng.uniform(size=150) < 0.9, rng.uniform(size=150) < 0.4)
        change = paired_change(before, after)
        missed += not change.low <= 0.6 * 0.9 + 0.4 * 0.4 - 0.6 <= change.high
    assert missed <= 36  # 20 expected, 99.9 % of the time below 36


def test_sets_in_common_stand_once_in_the_pool() -> None:
    first = blobs(30, 8)
    labels = first.labels.copy()
    labels[:4] = (labels[:4] + 1) % CLASSES
    second = Records(inputs=first.inputs, labels=labels)
    pool, members = pooled_sets([first, second])
    assert len(pool) == 34 and (members.sum(axis=1) == 30).all()
    for given_set, row in zip((first, second), members, strict=True):
        mine = pool.select(row)
        assert sorted(mine.labels) == sorted(given_set.labels)
        assert np.isclose(mine.inputs.sum(), given_set.inputs.sum())
    with pytest.raises(DataSplitError, match="equally many"):
        pooled_sets([first, blobs(31, 9)])


def test_features_are_what_the_last_layer_reads() -> None:
    (trained,) = LEARNER.fit_all([data().train], np.random.default_rng(8))
    assert isinstance(trained, Network)
    last = last_linear(trained.module)
    features = trained.features(data().test.inputs)
    by_hand = features @ last.weight.detach().numpy().T + last.bias.detach().numpy()
    assert np.allclose(by_hand, trained.logits(data().test.inputs))
    with pytest.raises(DataSplitError, match="no linear layer"):
        Network(nn.Flatten()).features(np.zeros((1, 4)))


class KeepsClean:
    """A filter that knows the truth."""

    def __init__(self, is_poison: np.ndarray) -> None:
        self._keep = ~is_poison

    def fit(self, records: Records) -> np.ndarray:
        assert len(records) == len(self._keep)
        return self._keep


def test_a_filter_that_knows_the_truth_closes_the_backdoor() -> None:
    attack = Backdoor(trigger=TRIGGER, target=0, budget=PoisonBudget(fraction=0.1))
    crafted = attack.craft(data(), np.random.default_rng(9))
    open_network = LEARNER.fit(crafted.training.records, np.random.default_rng(9))
    result = filtered(
        "backdoor",
        crafted,
        open_network,
        InFeatures(filter=KeepsClean(crafted.training.is_poison), network=open_network),
        LEARNER,
        data(),
        np.random.default_rng(9),
    )
    assert result.baseline[SUCCESS].low > 0.9 and result.metrics[SUCCESS].high < 0.2
    assert result.metrics["poison_removed"].value == 1
    assert result.metrics["clean_removed"].value == 0


def test_a_learner_gives_paired_networks_of_sets_of_any_size() -> None:
    sets = [blobs(60, 10), blobs(90, 11), blobs(60, 12)]
    learner = NetworkLearner(
        architecture=functools.partial(network), config=LEARNER.config, description="small"
    )
    found = learner.fit_all(sets, np.random.default_rng(10))
    (alone,) = learner.fit_all([sets[1]], np.random.default_rng(10))
    assert len(found) == 3
    probe = blobs(30, 13).inputs
    assert np.allclose(found[1].logits(probe), alone.logits(probe), atol=1e-4)
