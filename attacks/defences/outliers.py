"""Filters that drop outliers before training: sphere and slab (Steinhardt, Koh and Liang 2017).

               slab of y: |⟨x − μ_y, v⟩| ≤ s_y, v along the line through the centroids
                 ┊    ┊
          ╭──────┊────┊──────╮
          │      ┊ μ_y┊      │ ·········· v ··········► μ of the other class
          ╰──────┊────┊──────╯
                 ┊    ┊   sphere of y: ‖x − μ_y‖ ≤ r_y

Centroids and radii come from clean records that the defender is sure of (the paper's oracle
defence), or from the very records that are filtered, poison and all (its data-dependent defence).
Inputs may be raw records or the features of a network; arrays may be dense or sparse.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from attacks.core.arrays import Bools, Floats, Ints
from attacks.core.records import Records
from attacks.errors import DataSplitError


class RecordFilter(Protocol):
    """What a defender does to a training set before it is used."""

    def fit(self, records: Records) -> Bools:
        """(B,) True for each record that is kept. DataSplitError for no record at all."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Centroids:
    """``points`` (C, features): the mean of every class. ``axes`` (C, features): unit vectors,
    from the mean of the other classes' centroids to this one; the slab is across it.
    """

    points: Floats
    axes: Floats

    @classmethod
    def of(cls, inputs: Any, labels: Ints) -> Centroids:
        """Of records (B, features), dense or sparse, with labels from 0.

        Raises DataSplitError for no record, a class without any, or centroids that coincide.
        """
        if not inputs.shape[0]:
            raise DataSplitError("an outlier filter was fitted on nothing: give it records")
        classes = max(2, int(labels.max()) + 1)
        counts = np.bincount(labels, minlength=classes)
        if not counts.all():
            raise DataSplitError(
                f"no record of class {int(np.argmin(counts))}: a centroid needs at least one"
            )
        points = np.stack(
            [np.asarray(inputs[labels == label].mean(axis=0)).ravel() for label in range(classes)]
        )
        # (sum − own) / (C − 1) is the mean of the others.
        axes = points - (points.sum(axis=0) - points) / (classes - 1)
        lengths = np.linalg.norm(axes, axis=1)
        if not lengths.all():
            raise DataSplitError("two classes have one centroid: a slab has no direction")
        return cls(points=points, axes=axes / lengths[:, None])

    def check(self, inputs: Any, labels: Ints) -> None:
        """Raise DataSplitError unless these records have the centroids' features and classes."""
        if not inputs.shape[0]:
            raise DataSplitError("an outlier filter was given no record")
        if inputs.shape[1] != self.points.shape[1]:
            raise DataSplitError(
                f"centroids of {self.points.shape[1]} features do not fit records of "
                f"{inputs.shape[1]}"
            )
        if int(labels.max()) >= len(self.points):
            raise DataSplitError(
                f"a record of class {int(labels.max())}, and centroids of {len(self.points)} "
                "classes: fit on records of every class"
            )

    def distances(self, inputs: Any, labels: Ints) -> Floats:
        """(B,) Euclidean distance of every record to the centroid of its class."""
        found = np.zeros(inputs.shape[0])
        for label, point in enumerate(self.points):
            rows = inputs[labels == label]
            if rows.shape[0]:
                squares = _row_squares(rows) - 2 * np.asarray(rows @ point) + point @ point
                found[labels == label] = np.sqrt(np.maximum(squares, 0.0))
        return found

    def offsets(self, inputs: Any, labels: Ints) -> Floats:
        """(B,) distance of every record to its class's centroid, along its class's axis only."""
        found = np.zeros(inputs.shape[0])
        for label, (point, axis) in enumerate(zip(self.points, self.axes, strict=True)):
            rows = inputs[labels == label]
            if rows.shape[0]:
                found[labels == label] = np.abs(np.asarray(rows @ axis) - point @ axis)
        return found


def radii(scores: Floats, labels: Ints, removed: float) -> Floats:
    """(C,) for each class the value that a share ``removed`` of its scores exceeds."""
    return np.array(
        [
            np.quantile(scores[labels == label], 1 - removed)
            for label in range(int(labels.max()) + 1)
        ]
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _CentroidFilter(ABC):
    removed: float = 0.3
    clean: Records | None = None
    limits: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_share(self.removed)

    @abstractmethod
    def _scores(self, centroids: Centroids, records: Records) -> Floats:
        """(B,) how far every record lies from its class's centroid."""

    def fit(self, records: Records) -> Bools:
        """(B,) True for what is kept; DataSplitError if there is nothing to fit on."""
        basis = records if self.clean is None else self.clean
        centroids = Centroids.of(_flat(basis), basis.labels)
        centroids.check(_flat(records), records.labels)
        if self.limits is None:
            allowed = radii(self._scores(centroids, basis), basis.labels, self.removed)
        elif len(self.limits) == len(centroids.points):
            allowed = np.asarray(self.limits, dtype=np.float64)
        else:
            raise DataSplitError(
                f"{len(self.limits)} radii for {len(centroids.points)} classes: give one for each "
                "class"
            )
        scores = self._scores(centroids, records)
        # A record that sets the quantile itself must not fall to rounding.
        kept: Bools = scores <= allowed[records.labels] * (1 + 1e-9)
        return kept


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SphereFilter(_CentroidFilter):
    """Drops what lies far from its class's centroid.

    ``removed``: share of each class, of whatever it is fitted on, that lies outside. ``clean``:
    the records that centroids and radii are taken from; None takes the records to be filtered.
    ``limits`` (C,): radii fixed beforehand, in input units, in place of a share. With them and
    without ``clean``, poison moves the centroids and not the radii, which is the paper's
    data-dependent defence. Raises DataSplitError for a share outside [0, 1).
    """

    def _scores(self, centroids: Centroids, records: Records) -> Floats:
        return centroids.distances(_flat(records), records.labels)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlabFilter(_CentroidFilter):
    """Drops what lies far from its class's centroid along the line to the other classes.

    Fields as :class:`SphereFilter`'s. A mislabelled record lies across that line, so this filter
    is the stricter one where classes are close to each other.
    """

    def _scores(self, centroids: Centroids, records: Records) -> Floats:
        return centroids.offsets(_flat(records), records.labels)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AllOf:
    """Keeps what every one of ``filters`` keeps, each fitted on the whole set."""

    filters: tuple[RecordFilter, ...]

    def __post_init__(self) -> None:
        if not self.filters:
            raise DataSplitError("a filter made of no filters keeps everything: name at least one")

    def fit(self, records: Records) -> Bools:
        """(B,) True for what is kept; DataSplitError if there is nothing to fit on."""
        kept = np.ones(len(records), dtype=np.bool_)
        for each in self.filters:
            kept &= each.fit(records)
        return kept


def check_share(removed: float) -> None:
    """Raise DataSplitError unless a filter removes a share in [0, 1)."""
    if not 0 <= removed < 1:
        raise DataSplitError(f"a filter removes a share in [0, 1), got {removed}")


def _flat(records: Records) -> Floats:
    return records.inputs.reshape(len(records), int(np.prod(records.shape)))


def _row_squares(rows: Any) -> Floats:
    if isinstance(rows, np.ndarray):
        dense: Floats = np.einsum("ij,ij->i", rows, rows)
        return dense
    squares: Floats = np.asarray(rows.multiply(rows).sum(axis=1), dtype=np.float64).ravel()
    return squares
