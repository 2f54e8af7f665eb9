"""The records that pass the filters, and the worst of them for a linear model.

A class has a centroid μ, an axis v, a radius r and a slab s. A record x passes if the domain allows
it, ‖x − μ‖ ≤ r and |⟨v, x − μ⟩| ≤ s. A model's loss is largest where ⟨g, x⟩ is, with g = −y·w.
With multipliers t > 0 for the sphere and κ for the slab the maximiser is

    x(t, κ) = the domain's nearest point to  μ + t·g − κ·v

The dual value bounds the loss from above at *any* t and κ, also over integers and before the
search for the best ones has ended. So a certificate may use that bound. Without limits on values,
maximiser and bound have a closed form, and the bound is attained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from attacks.core.arrays import Bools, Floats
from attacks.defences.outliers import Centroids, check_share, radii
from attacks.errors import DataSplitError
from attacks.poisoning.certified.binary import BinarySet, LinearModel
from attacks.poisoning.certified.domains import Domain

_SLACK: Final = 1e-9  # relative; what rounding may add to a distance
_GAP: Final = 1e-5  # of ⟨g, x⟩, in units of ‖g‖·r, at which a search ends
_STEPS: Final = 30
_WIDEST: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Worst:
    """``record`` (features,) of class ``sign``, which passes the filters.

    ``loss``: the model's hinge loss on it. ``bound``: no record that passes has a larger loss.
    """

    record: Floats
    sign: float
    loss: float
    bound: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeasibleSet:
    """Records that sphere and slab let through, for both classes; label 0 is sign −1.

    ``spheres``, ``slabs`` (2,): radii in input units. Raises DataSplitError unless positive.
    """

    centroids: Centroids
    spheres: Floats
    slabs: Floats
    domain: Domain

    def __post_init__(self) -> None:
        if self.spheres.shape != (2,) or self.slabs.shape != (2,):
            raise DataSplitError("sphere and slab have a radius for each of two classes")
        if not (self.spheres > 0).all() or not (self.slabs > 0).all():
            raise DataSplitError(
                f"radii are positive, got spheres {self.spheres} and slabs {self.slabs}: remove a "
                "smaller share"
            )

    @classmethod
    def of(cls, clean: BinarySet, *, removed: float, domain: Domain) -> FeasibleSet:
        """Centroids of ``clean``, and radii that a share ``removed`` of each class exceeds.

        Either filter removes that share. Raises DataSplitError for a share outside [0, 1).
        """
        check_share(removed)
        centroids = Centroids.of(clean.inputs, clean.labels)
        spheres, slabs = (
            radii(scores(clean.inputs, clean.labels), clean.labels, removed)
            for scores in (centroids.distances, centroids.offsets)
        )
        return cls(centroids=centroids, spheres=spheres, slabs=slabs, domain=domain)

    def contains(self, records: BinarySet) -> Bools:
        """(B,) which records pass both filters."""
        labels = records.labels
        self.centroids.check(records.inputs, labels)
        far = self.centroids.distances(records.inputs, labels)
        across = self.centroids.offsets(records.inputs, labels)
        passes: Bools = (far <= self.spheres[labels] * (1 + _SLACK)) & (
            across <= self.slabs[labels] * (1 + _SLACK)
        )
        return passes

    def worst(self, model: LinearModel) -> Worst:
        """The record of either class on which ``model`` loses most, and a bound for both."""
        sides = [self.worst_of(model, sign) for sign in (-1.0, 1.0)]
        chosen = max(sides, key=lambda side: side.loss)
        return Worst(
            record=chosen.record,
            sign=chosen.sign,
            loss=chosen.loss,
            bound=max(side.bound for side in sides),
        )

    def worst_of(self, model: LinearModel, sign: float) -> Worst:
        """The record of class ``sign`` on which ``model`` loses most.

        Raises DataSplitError if the domain has no record at all that passes both filters.
        """
        label = int(sign > 0)
        problem = _Problem(
            objective=-sign * model.weights,
            center=self.centroids.points[label],
            axis=self.centroids.axes[label],
            sphere=float(self.spheres[label]),
            slab=float(self.slabs[label]),
            domain=self.domain,
        )
        record, value, bound = problem.closed() if self.domain.is_everything else problem.search()
        base = 1.0 - sign * model.bias
        return Worst(
            record=record, sign=sign, loss=max(0.0, base + value), bound=max(0.0, base + bound)
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Problem:
    """Maximise ⟨objective, x⟩ over the domain, the ball and the slab."""

    objective: Floats
    center: Floats
    axis: Floats
    sphere: float
    slab: float
    domain: Domain

    def closed(self) -> tuple[Floats, float, float]:
        """The maximiser, its value and the same value as the bound, with any values allowed."""
        along = float(self.objective @ self.axis)
        across = self.objective - along * self.axis
        length = float(np.linalg.norm(self.objective))
        if length == 0.0:
            move = np.zeros_like(self.objective)
        elif self.sphere * abs(along) <= self.slab * length:
            move = self.sphere / length * self.objective
        else:
            height = math.copysign(min(self.slab, self.sphere), along)
            rest = math.sqrt(max(0.0, self.sphere**2 - height**2))
            width = float(np.linalg.norm(across))
            move = height * self.axis + (rest / width * across if width > 0 else 0.0)
        record = self.center + move
        value = float(self.objective @ record)
        return record, value, value

    def search(self) -> tuple[Floats, float, float]:
        """A record that passes, its value, and the least dual value that was seen."""
        length = float(np.linalg.norm(self.objective))
        if length == 0.0:
            return self._inside(), 0.0, 0.0
        enough = _GAP * self.sphere * length
        low, high = 0.0, self.sphere / length
        best: Floats | None = None
        value, bound = -math.inf, math.inf
        growing = True
        for _ in range(_WIDEST):
            middle = high if growing else (low + high) / 2
            record, dual = self._at(middle)
            bound = min(bound, dual)
            if self._passes(record):
                found = float(self.objective @ record)
                if found > value:
                    best, value = record, found
                # Where the domain's own limits hold the record inside the sphere, t grows.
                low, high = middle, 2 * high if growing else high
            else:
                growing, high = False, middle
            if bound - value <= enough or (not growing and high - low <= _GAP * high):
                break
        if best is None:
            best = self._inside()
            value = float(self.objective @ best)
        return best, value, max(bound, value)

    def _at(self, scale: float) -> tuple[Floats, float]:
        """The record for the best κ at t = ``scale``, and the dual value there."""
        target = self.center + scale * self.objective
        record, kappa = self._within_slab(target)
        move = record - self.center
        dual = (
            float(self.objective @ record)
            + (self.sphere**2 - float(move @ move)) / (2 * scale)
            + (abs(kappa) * self.slab - kappa * float(self.axis @ move)) / scale
        )
        return record, dual

    def _within_slab(self, target: Floats) -> tuple[Floats, float]:
        """The domain's nearest record to target − κ·axis, for the least |κ| that meets the slab."""
        record = self.domain.nearest(target)
        height = self._height(record)
        if abs(height) <= self.slab:
            return record, 0.0
        side = math.copysign(1.0, height)
        low, high = 0.0, abs(height) - self.slab
        for _ in range(_WIDEST):
            record = self.domain.nearest(target - side * high * self.axis)
            if side * self._height(record) <= self.slab:
                break
            low, high = high, 2 * high
        for _ in range(_STEPS):
            middle = (low + high) / 2
            tried = self.domain.nearest(target - side * middle * self.axis)
            if side * self._height(tried) <= self.slab:
                record, high = tried, middle
                if side * self._height(tried) >= self.slab * (1 - 1e-6):
                    break
            else:
                low = middle
        return record, side * high

    def _height(self, record: Floats) -> float:
        return float(self.axis @ (record - self.center))

    def _passes(self, record: Floats) -> bool:
        return abs(self._height(record)) <= self.slab * (1 + _SLACK) and bool(
            np.linalg.norm(record - self.center) <= self.sphere * (1 + _SLACK)
        )

    def _inside(self) -> Floats:
        """The allowed record nearest to the centroid within the slab."""
        record, _ = self._within_slab(self.center)
        if not self._passes(record):
            raise DataSplitError(
                f"no record that the domain allows passes a sphere of {self.sphere:.4g} and a "
                f"slab of {self.slab:.4g}: remove a smaller share"
            )
        return record
