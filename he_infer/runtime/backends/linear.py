"""Linear maps between ciphertexts, as every backend is asked to evaluate them.

    y = fold(Σ_g rotate(Σ_b values · rotate(x, b), g)),  rescaled

Groups run from the outermost giant step inwards: after a group's products have joined the
total, the total is rotated by ``then``. The rescale comes last, so that the noise of every key
switch is measured against the product's scale and not against the result's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from he_infer.plan.ir import FloatArray
from he_infer.runtime.costs import LinearCounts

Values = Callable[[], FloatArray | float]


@dataclass(frozen=True, slots=True)
class Product:
    """``values()`` are the N/2 slots, or one number for all, that meet a rotated source."""

    source: int
    rotation: int  # slots to the left, 0 ≤ rotation < N/2
    values: Values


@dataclass(frozen=True, slots=True)
class Group:
    products: tuple[Product, ...]
    then: int  # slots to the left; 0: no rotation


@dataclass(frozen=True, kw_only=True)
class LinearMap:
    """Groups by target. ``level``: of the sources; ``scale``: of the encoded values.

    ``scalars``: every value is one number for all slots, so nothing is rotated. ``repeats``:
    values repeat often enough for plaintexts to be shorter than ciphertexts.
    """

    level: int
    scale: float
    targets: tuple[tuple[Group, ...], ...]
    folds: tuple[int, ...]
    scalars: bool
    repeats: bool = False

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Those of all targets."""
        return tuple(group for groups in self.targets for group in groups)

    @property
    def rotations(self) -> set[int]:
        """Steps whose Galois keys are needed."""
        steps = {product.rotation for group in self.groups for product in group.products}
        return (steps | {group.then for group in self.groups} | set(self.folds)) - {0}

    @cached_property
    def counts(self) -> LinearCounts:
        products = [product for group in self.groups for product in group.products]
        rotated = {(p.source, p.rotation) for p in products if p.rotation}
        plaintexts = 0 if self.scalars else len(products)
        return LinearCounts(
            hoisted=len({source for source, _ in rotated}),
            babies=len(rotated),
            giants=sum(1 for group in self.groups if group.then),
            folds=len(self.folds) * len(self.targets),
            products=plaintexts,
            full=0 if self.repeats else plaintexts,
            numbers=len(products) - plaintexts,
            targets=len(self.targets),
        )
