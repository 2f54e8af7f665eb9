"""Linear maps on every backend: hoisted or step by step, with their folds and rescale."""

from __future__ import annotations

import numpy as np
import pytest

from he_infer.runtime.backends.linear import Group, LinearMap, Product
from tests.runtime.backends.harness import PARAMS, SCALE, TOP, Harness, Slots, vector


def expected_linear(linear: LinearMap, sources: list[Slots]) -> list[Slots]:
    results = []
    for groups in linear.targets:
        total: Slots = np.zeros(PARAMS.slots)
        for group in groups:
            for p in group.products:
                total = total + np.roll(sources[p.source], -p.rotation) * p.values()
            total = np.roll(total, -group.then)
        for fold in linear.folds:
            total = total + np.roll(total, -fold)
        results.append(total)
    return results


def product(source: int, rotation: int, seed: int, period: int = 0) -> Product:
    values = np.tile(vector(seed)[:period], PARAMS.slots // period) if period else vector(seed)
    return Product(source, rotation, lambda: values)


def number(source: int, value: float) -> Product:
    return Product(source, 0, lambda: value)


LINEAR: dict[str, tuple[tuple[tuple[Group, ...], ...], tuple[int, ...]]] = {
    "products alone": (((Group((product(0, 0, 5), product(1, 0, 6)), 0),),), ()),
    "baby steps": (((Group((product(0, 1, 5), product(0, 5, 6), product(1, 0, 7)), 0),),), ()),
    "giant steps": (((Group((product(0, 0, 5),), 5), Group((product(1, 0, 6),), 0)),), ()),
    "both, two targets": (
        (
            (Group((product(0, 1, 5),), 5), Group((product(1, 5, 6), product(0, 0, 4)), 0)),
            (Group((product(1, 1, 8),), 0),),
        ),
        (),
    ),
    "an empty group": (((Group((product(0, 1, 5),), 5), Group((), 1)),), ()),
    "folds": (((Group((product(0, 0, 5),), 0),),), (1, 5)),
    "folds of rotations": (((Group((product(0, 5, 5),), 1), Group((), 0)),), (1,)),
    "short periods": (((Group((product(0, 1, 5, 8), product(1, 5, 6, 512)), 0),),), (4095,)),
    "numbers": (((Group((number(0, 0.5), number(1, -0.25)), 0),),), ()),
    "several sums of numbers": (
        (
            (Group((number(0, 0.5), number(1, -0.25)), 0),),
            (Group((number(1, 1e-3),), 0),),
            (Group((number(0, 0.0),), 0),),
        ),
        (),
    ),
}


@pytest.mark.parametrize("name", LINEAR)
def test_linear_maps(harness: Harness, name: str) -> None:
    targets, folds = LINEAR[name]
    backend, values = harness.backend, [vector(0), vector(1)]
    linear = LinearMap(
        level=TOP,
        scale=float(PARAMS.primes[TOP]),
        targets=targets,
        folds=folds,
        scalars=name.endswith("numbers"),
    )
    prepared = backend.prepare(linear)
    for _ in range(2):  # what was prepared can be used again
        results = backend.apply(prepared, [harness.encrypt(x) for x in values])
        wanted = expected_linear(linear, values)
        assert len(results) == len(wanted)
        for result, expected in zip(results, wanted, strict=True):
            harness.check(result, expected, level=TOP - 1, scale=SCALE)
            assert backend.size(result) == 2


def test_sums_of_products_are_relinearised_last(harness: Harness) -> None:
    backend, values = harness.backend, [vector(0), vector(1)]
    squares = [backend.multiply(c, c) for c in map(harness.encrypt, values)]
    assert [backend.size(c) for c in squares] == [3, 3]
    targets = ((Group((number(0, 0.5), number(1, 0.25)), 0),),)
    linear = LinearMap(level=TOP, scale=2.0**30, targets=targets, folds=(), scalars=True)
    (result,) = backend.apply(backend.prepare(linear), squares)
    assert backend.size(result) == 2
    scale = SCALE**2 * 2.0**30 / PARAMS.primes[TOP]
    expected = 0.5 * values[0] ** 2 + 0.25 * values[1] ** 2
    harness.check(result, expected, level=TOP - 1, scale=scale)


def test_each_keeps_the_order(harness: Harness) -> None:
    backend = harness.backend
    items = [harness.encrypt(vector(k)) for k in range(5)]
    for k, result in enumerate(backend.each(lambda c: backend.add(c, c), items)):
        harness.check(result, 2 * vector(k), level=TOP, scale=SCALE)
