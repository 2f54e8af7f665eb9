"""Activation clustering: the features of a poisoned class fall into two clusters.

    features of class y ──► independent components ──► 2-means ──► is the smaller one poison?
                                                          └─ yes, if it is small (relative size)
                                                             and the two are apart (silhouette)

Source: Chen et al., Detecting backdoor attacks on deep neural networks by activation clustering,
arXiv:1811.03728, sections 4 and 4.1.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, FastICA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import silhouette_score

from attacks.core.arrays import Bools, Floats
from attacks.core.records import Records
from attacks.errors import DataSplitError

# Fewer records of a class than this say nothing about clusters; all of them are kept.
_LEAST: Final = 8
_SEED: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterVerdict:
    """One class: ``smaller`` (its records, bool), how large a share they are, how far apart the
    clusters are on a scale from −1 to 1, and whether the smaller one is taken for poison."""

    label: int
    smaller: Bools
    size: float
    silhouette: float
    poisoned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationClustering:
    """``components``: 10 in the paper. A class's smaller cluster is dropped if it holds less than
    ``largest_share`` of the class and the silhouette is ``least_silhouette`` or more.

    Raises DataSplitError for values outside (0, 0.5] and [−1, 1].
    """

    components: int = 10
    largest_share: float = 0.35
    least_silhouette: float = 0.1

    def __post_init__(self) -> None:
        if self.components < 1 or not 0 < self.largest_share <= 0.5:
            raise DataSplitError(
                f"clustering takes a component at least and a share in (0, 0.5], got "
                f"{self.components} and {self.largest_share}"
            )
        if not -1 <= self.least_silhouette <= 1:
            raise DataSplitError(f"a silhouette lies in [-1, 1], got {self.least_silhouette}")

    def fit(self, records: Records) -> Bools:
        """(B,) True for what is kept. ``records``: features (B, features) with labels as given.

        Raises DataSplitError if there is nothing to fit on.
        """
        keep = np.ones(len(records), dtype=np.bool_)
        for verdict in self.judge(records):
            if verdict.poisoned:
                rows = np.flatnonzero(records.labels == verdict.label)
                keep[rows[verdict.smaller]] = False
        return keep

    def judge(self, records: Records) -> tuple[ClusterVerdict, ...]:
        """What was found in every class that has enough records."""
        if not len(records):
            raise DataSplitError("activation clustering was fitted on nothing: give features")
        features = records.inputs.reshape(len(records), -1)
        return tuple(
            self._verdict(int(label), features[records.labels == label])
            for label in np.unique(records.labels)
            if np.count_nonzero(records.labels == label) >= _LEAST
        )

    def _verdict(self, label: int, features: Floats) -> ClusterVerdict:
        reduced = _independent_components(features, self.components)
        clusters = KMeans(n_clusters=2, n_init=10, random_state=_SEED).fit_predict(reduced)
        counts = np.bincount(clusters, minlength=2)
        smaller: Bools = clusters == int(counts.argmin())
        size = float(smaller.mean())
        apart = float(silhouette_score(reduced, clusters)) if counts.min() else 0.0
        return ClusterVerdict(
            label=label,
            smaller=smaller,
            size=size,
            silhouette=apart,
            poisoned=0 < size < self.largest_share and apart >= self.least_silhouette,
        )


def _independent_components(features: Floats, components: int) -> Floats:
    """(B, features) → (B, ≤ components); principal ones where independent ones do not exist."""
    # A unit that is never active says nothing and cannot be whitened.
    centred = features - features.mean(axis=0)
    rank = int(np.linalg.matrix_rank(centred))
    wanted = max(1, min(components, rank, len(features) - 1))
    if rank < 2:
        return np.asarray(PCA(n_components=1).fit_transform(centred), dtype=np.float64)
    with warnings.catch_warnings():
        # Where it does not converge the components it has are what the paper's code takes too.
        warnings.simplefilter("ignore", ConvergenceWarning)
        analysis = FastICA(
            n_components=wanted, whiten="unit-variance", random_state=_SEED, max_iter=400, tol=1e-3
        )
        return np.asarray(analysis.fit_transform(centred), dtype=np.float64)
