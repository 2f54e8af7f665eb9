"""Filters whose centroids are moved by the poison, and a set that holds every attack on them.

The data-dependent defence of Steinhardt, Koh and Liang (2017) keeps its radii and takes centroids
from the poisoned records. With m poison records in a class of n clean ones, all of which pass, the
class's centroid moves by m/n times the poison's mean offset from where it ends up:

    ‖x − μ̂‖ ≤ r for all poison   ⟹   ‖μ̂ − μ‖ ≤ (m/n)·r   ⟹   ‖x − μ‖ ≤ (1 + m/n)·r

The same holds along the axis, once its turn is allowed for. Let the centroids lie ‖u‖ apart and
move by Δ together. Then sin θ ≤ Δ/‖u‖, and a record's offset changes by at most r·2·sin(θ/2). So
every attack that passes the moved filters lies in a wider set around the *clean* centroids, and the
certificate for that set holds for it. The paper bounds the same by a semidefinite program over
inner products, which is tighter and is not solved here.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from attacks.defences.outliers import Centroids
from attacks.errors import DataSplitError
from attacks.poisoning.certified.binary import BinarySet, joined
from attacks.poisoning.certified.feasible import FeasibleSet


def widened(feasible: FeasibleSet, clean: BinarySet, count: int) -> FeasibleSet:
    """The clean set that holds every attack of ``count`` records that passes moved filters.

    ``feasible``: of the clean records, with the radii that are kept. Raises DataSplitError if the
    poison could turn the axis by a right angle: then a slab bounds nothing.
    """
    sizes = np.bincount(clean.labels, minlength=2)
    grown = count / sizes  # all of it may be in one class
    points = feasible.centroids.points
    apart = float(np.linalg.norm(points[1] - points[0]))
    moves = float((grown * feasible.spheres).max())
    if moves >= apart:
        raise DataSplitError(
            f"{count} poison records can move centroids by {moves:.3g}, and they lie only "
            f"{apart:.3g} apart: a slab between them bounds nothing, allow less poison"
        )
    turn = 2 * math.sin(math.asin(moves / apart) / 2)
    return replace(
        feasible,
        spheres=(1 + grown) * feasible.spheres,
        slabs=(1 + grown) * (feasible.slabs + turn * feasible.spheres),
    )


def settled(feasible: FeasibleSet, clean: BinarySet, poison: BinarySet) -> BinarySet:
    """What is left of ``poison`` when records that fail are taken away until all that are left
    pass the filters that they move; may be empty."""
    while len(poison):
        both = joined([clean, poison])
        moved = replace(feasible, centroids=Centroids.of(both.inputs, both.labels))
        passes = moved.contains(poison)
        if passes.all():
            break
        poison = poison.select(passes)
    return poison
