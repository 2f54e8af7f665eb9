"""Linear maps by the elementary operations, for backends that have nothing faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from he_infer.runtime.backends.base import Backend, C, P
from he_infer.runtime.backends.linear import LinearMap, Product


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
