"""Spectral signatures and activation clustering, on features whose poison is known."""

from __future__ import annotations

import numpy as np
import pytest

from attacks.core.records import Records
from attacks.defences.clustering import ActivationClustering
from attacks.defences.spectral import SpectralSignatures, signature_scores
from attacks.errors import DataSplitError

FEATURES = 16


def features(count: int, seed: int, *, poison: int = 0, away: float = 6.0) -> Records:
    """Two classes of normal features; the last ``poison`` records, of class 0, lie ``away``."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 2).astype(np.int64)
    inputs = rng.normal(size=(count, FEATURES)) + 3 * labels[:, None]
    added = rng.normal(size=(poison, FEATURES))
    added[:, 0] += away
    return Records(
        inputs=np.concatenate([inputs, added]),
        labels=np.concatenate([labels, np.zeros(poison, dtype=np.int64)]),
    )


def test_signatures_are_squared_projections_on_the_first_direction() -> None:
    given = features(60, 0, poison=5)
    scores = signature_scores(given)
    rows = given.labels == 0
    centred = given.inputs[rows] - given.inputs[rows].mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    assert np.allclose(scores[rows], (centred @ vectors[:, -1]) ** 2)
    assert scores[rows].sum() == pytest.approx(values[-1])


def test_signatures_drop_the_poison_and_their_share_of_each_class() -> None:
    given = features(400, 1, poison=20)
    keep = SpectralSignatures(expected=20 / 220).fit(given)
    assert not keep[400:].any()
    dropped = [int((~keep[given.labels == label]).sum()) for label in (0, 1)]
    assert dropped == [30, round(1.5 * 20 / 220 * 200)]


def test_clustering_drops_a_second_cluster_and_nothing_else() -> None:
    poisoned = features(400, 2, poison=30)
    verdicts = ActivationClustering().judge(poisoned)
    assert [verdict.poisoned for verdict in verdicts] == [True, False]
    keep = ActivationClustering().fit(poisoned)
    assert not keep[400:].any() and keep[:400].mean() > 0.99
    assert ActivationClustering().fit(features(400, 3)).all()


def test_clustering_takes_features_of_any_rank() -> None:
    flat = Records(
        inputs=np.outer(np.arange(40.0), np.ones(4)), labels=np.zeros(40, dtype=np.int64)
    )
    assert ActivationClustering().fit(flat).shape == (40,)
    few = features(10, 4)
    assert ActivationClustering().fit(few).all()  # too few for clusters


@pytest.mark.parametrize("detector", [SpectralSignatures(expected=0.1), ActivationClustering()])
def test_a_detector_fitted_on_nothing_is_refused(detector: SpectralSignatures) -> None:
    with pytest.raises(DataSplitError, match="fitted on nothing"):
        detector.fit(features(0, 0))


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: SpectralSignatures(expected=0.0), "share of poison"),
        (lambda: SpectralSignatures(expected=0.1, margin=0.0), "positive margin"),
        (lambda: ActivationClustering(largest_share=0.7), r"\(0, 0.5\]"),
        (lambda: ActivationClustering(least_silhouette=2.0), "silhouette"),
    ],
)
def test_settings_out_of_range_are_refused(attempt: object, message: str) -> None:
    with pytest.raises(DataSplitError, match=message):
        attempt()  # type: ignore[operator]
