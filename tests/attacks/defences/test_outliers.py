"""Sphere and slab filters keep what they promise, whoever poisons their centroids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from attacks.core.records import Records
from attacks.defences.outliers import (
    AllOf,
    Centroids,
    RecordFilter,
    SlabFilter,
    SphereFilter,
    radii,
)
from attacks.errors import DataSplitError
from attacks.poisoning.setting import PoisonedSet, removal

FILTERS = (SphereFilter, SlabFilter)


def clusters(seed: int, count: int = 200, classes: int = 2, features: int = 6) -> Records:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    inputs = rng.normal(size=(count, features))
    inputs[np.arange(count), labels] += 4.0
    return Records(inputs=inputs, labels=labels.astype(np.int64))


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_filter_removes_its_share_of_every_class(
    kind: type[SphereFilter] | type[SlabFilter], classes: int
) -> None:
    records = clusters(0, count=300, classes=classes)
    kept = kind(removed=0.3).fit(records)
    for label in range(classes):
        assert abs(kept[records.labels == label].mean() - 0.7) <= 1 / 100
    assert kind(removed=0.0).fit(records).all()


@given(seed=st.integers(0, 10_000), removed=st.floats(0.0, 0.9))
@settings(max_examples=25, deadline=None)
def test_distances_and_offsets_agree_with_a_naive_reference(seed: int, removed: float) -> None:
    records = clusters(seed, count=40, classes=2, features=5)
    inputs, labels = records.inputs, records.labels
    means = [inputs[labels == y].mean(axis=0) for y in (0, 1)]
    axis = (means[1] - means[0]) / np.linalg.norm(means[1] - means[0])
    far = np.array([np.linalg.norm(x - means[y]) for x, y in zip(inputs, labels, strict=True)])
    across = np.array(
        [abs(float((x - means[y]) @ axis)) for x, y in zip(inputs, labels, strict=True)]
    )
    for form in (inputs, sparse.csr_matrix(inputs)):
        found = Centroids.of(form, labels)
        np.testing.assert_allclose(found.distances(form, labels), far, rtol=1e-9)
        np.testing.assert_allclose(found.offsets(form, labels), across, atol=1e-9)
    kept = SphereFilter(removed=removed).fit(records)
    limits = [np.quantile(far[labels == y], 1 - removed) for y in (0, 1)]
    assert (kept == (far <= np.array(limits)[labels] * (1 + 1e-9))).all()


@pytest.mark.parametrize("kind", FILTERS)
def test_a_mislabelled_cluster_falls_to_clean_centroids(
    kind: type[SphereFilter] | type[SlabFilter],
) -> None:
    clean = clusters(1)
    flipped = clean.select(slice(0, 20))
    poison = Records(inputs=flipped.inputs, labels=1 - flipped.labels)
    both = PoisonedSet.of(clean, poison)
    found = removal(kind(removed=0.05, clean=clean).fit(both.records), both.is_poison)
    assert found["poison_removed"].value == 1
    assert found["clean_removed"].value <= 0.06


def test_poison_moves_centroids_that_are_taken_from_it() -> None:
    clean = clusters(2, count=200)
    # As many far copies as clean records of the class: its centroid lands half way to them.
    far = np.tile([[-12.0, 0, 0, 0, 0, 0]], (100, 1))
    both = PoisonedSet.of(clean, Records(inputs=far, labels=np.zeros(100, dtype=np.int64)))
    centroids = Centroids.of(clean.inputs, clean.labels)
    limits = tuple(radii(centroids.distances(clean.inputs, clean.labels), clean.labels, 0.0))
    oracle = SphereFilter(clean=clean, limits=limits).fit(both.records)
    moved = SphereFilter(limits=limits).fit(both.records)
    assert not oracle[both.is_poison].any() and oracle[~both.is_poison].all()
    assert not moved[~both.is_poison & (both.records.labels == 0)].any()


def test_filters_combine_and_take_any_shape() -> None:
    records = clusters(3, count=100, features=6)
    images = Records(inputs=records.inputs.reshape(100, 1, 2, 3), labels=records.labels)
    parts: tuple[RecordFilter, ...] = (SphereFilter(removed=0.2), SlabFilter(removed=0.2))
    both = AllOf(filters=parts).fit(images)
    assert (both == parts[0].fit(records) & parts[1].fit(records)).all()


@pytest.mark.parametrize("kind", FILTERS)
def test_what_cannot_be_fitted_is_refused(kind: type[SphereFilter] | type[SlabFilter]) -> None:
    records = clusters(4)
    with pytest.raises(DataSplitError, match="fitted on nothing"):
        kind().fit(records.select(slice(0, 0)))
    with pytest.raises(DataSplitError, match="no record of class 1"):
        kind().fit(records.select(records.labels == 0))
    with pytest.raises(DataSplitError, match="share in"):
        kind(removed=1.0)
    with pytest.raises(DataSplitError, match="2 features do not fit"):
        other = Records(inputs=records.inputs[:, :2], labels=records.labels)
        kind(clean=other).fit(records)
    with pytest.raises(DataSplitError, match="3 radii for 2 classes"):
        kind(limits=(1.0, 1.0, 1.0)).fit(records)
    with pytest.raises(DataSplitError, match="class 2"):
        kind(clean=records).fit(clusters(4, classes=3))
    same = Records(inputs=np.ones((4, 2)), labels=np.array([0, 1, 0, 1]))
    with pytest.raises(DataSplitError, match="one centroid"):
        kind().fit(same)
    with pytest.raises(DataSplitError, match="no filters"):
        AllOf(filters=())
