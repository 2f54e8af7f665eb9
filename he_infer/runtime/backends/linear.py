"""Linear maps between ciphertexts, as every backend is asked to evaluate them.

    y = fold(Σ_g rotate(Σ_b values · rotate(x, b), g)),  rescaled

Groups run from the outermost giant step inwards: after a group's products have joined the
total, the total is rotated by ``then``. The rescale comes last, so that the noise of every key
switch is measured against the product's scale and not against the result's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic

from he_infer.plan.ir import FloatArray
from he_infer.runtime.backends.base import Backend, C, P
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
    def counts(self) -> LinearCounts:
        rotated = {
            (p.source, p.rotation)
            for groups in self.targets
            for group in groups
            for p in group.products
            if p.rotation
        }
        products = sum(len(group.products) for groups in self.targets for group in groups)
        return LinearCounts(
            hoisted=len({source for source, _ in rotated}),
            babies=len(rotated),
            giants=sum(1 for groups in self.targets for group in groups if group.then),
            folds=len(self.folds) * len(self.targets),
            products=0 if self.scalars else products,
            full=0 if self.scalars or self.repeats else products,
            numbers=products if self.scalars else 0,
            targets=len(self.targets),
        )


@dataclass(frozen=True, slots=True)
class Encoded(Generic[P]):
    """A linear map whose values are encoded; ``plain[t][g][i]`` goes with the i-th product."""

    linear: LinearMap
    plain: tuple[tuple[tuple[P, ...], ...], ...]


def encode_linear(backend: Backend[C, P], linear: LinearMap) -> Encoded[P]:
    """Encode every value once, for backends that evaluate step by step."""

    def encoded(product: Product) -> P:
        return backend.encode(product.values(), level=linear.level, scale=linear.scale)

    return Encoded(
        linear,
        tuple(
            tuple(tuple(encoded(p) for p in group.products) for group in groups)
            for groups in linear.targets
        ),
    )


def apply_stepwise(
    backend: Backend[C, P],
    encoded: Encoded[P],
    sources: Sequence[C],
    rotate: Callable[[C, int], C] | None = None,
) -> list[C]:
    """Evaluate by the elementary operations, each rotation once; ``rotate`` replaces rotations."""
    rotate = backend.rotate if rotate is None else rotate
    rotated: dict[tuple[int, int], C] = {}

    def source(product: Product) -> C:
        key = (product.source, product.rotation)
        if key not in rotated:
            plain = sources[product.source]
            rotated[key] = rotate(plain, product.rotation) if product.rotation else plain
        return rotated[key]

    results = []
    for groups, plains in zip(encoded.linear.targets, encoded.plain, strict=True):
        total: Any = None
        for group, plain in zip(groups, plains, strict=True):
            for product, p in zip(group.products, plain, strict=True):
                term = backend.multiply_plain(source(product), p)
                total = term if total is None else backend.add(total, term)
            if group.then:
                total = rotate(total, group.then)
        for fold in encoded.linear.folds:
            total = backend.add(total, rotate(total, fold))
        if backend.size(total) > 2:
            total = backend.relinearize(total)
        results.append(backend.rescale(total))
    return results
