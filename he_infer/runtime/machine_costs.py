"""Measures what operations cost on this machine, on the backend that serves here.

Linear maps of several shapes and levels are timed. What the model says of each is a sum of
counts times constants, so the constants follow by non-negative least squares, every timing
weighted by itself: relative errors are what matters.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from scipy.optimize import nnls

from he_infer.keys.secret import SecretKeys
from he_infer.params import CKKSParams
from he_infer.runtime.backends.choose import encrypted_backend
from he_infer.runtime.backends.linear import Group, LinearMap, Product
from he_infer.runtime.costs import CostModel

# The chain of a network of two squares, and the scale of its weights.
BITS: Final = (33, 50, 50, 23)
SPECIAL_BITS: Final = 50
SCALE: Final = 2.0**27
WEIGHT_SCALE: Final = 2.0**23
CONSTANTS: Final = tuple(f.name for f in dataclasses.fields(CostModel) if f.name != "hoisting")
Timed = tuple[Callable[[CostModel], float], float]  # what the model says, what the clock says


def fit(timings: list[Timed]) -> CostModel:
    """Constants by weighted non-negative least squares over (prediction, milliseconds).

    They describe hoisted rotations, so fit them only where ``costs.hoisting`` is true.
    """
    units = [_model({n: float(n == name) for n in CONSTANTS}) for name in CONSTANTS]
    rows = np.array([[predict(unit) / ms for unit in units] for predict, ms in timings])
    values, _ = nnls(rows, np.ones(len(rows)))
    least = 1e-6  # a constant of zero would make its operation free
    return _model({n: max(float(v), least) for n, v in zip(CONSTANTS, values, strict=True)})


def _model(constants: dict[str, float]) -> CostModel:
    return dataclasses.replace(CostModel(), **constants)  # type: ignore[arg-type]


def measure(*, repeats: int) -> list[Timed]:
    """Time linear maps and exchanges at every level; medians in milliseconds.

    Takes about five seconds for seven repeats. Raises BackendError where no backend can run.
    """
    params = CKKSParams.from_bits(8192, BITS, special_bits=SPECIAL_BITS)
    secret = SecretKeys.generate(params)
    steps = list(range(1, 16))
    bare = encrypted_backend(params)
    backend = bare.with_keys(bare.load_keys(secret.evaluation_keys(steps)))
    rng = np.random.default_rng(0)
    slots = rng.uniform(-1, 1, params.slots)
    (query,) = secret.encrypt(slots[None], SCALE)
    fresh = backend.import_ciphertext(query)
    found: list[Timed] = []

    def add(predict: Callable[[CostModel], float], run: Callable[[], object]) -> None:
        found.append((predict, _median_ms(run, repeats)))

    for level in range(params.max_level, 0, -1):
        source = backend.drop_to(fresh, level)
        for linear in _maps(level, slots):
            sources = [source] * (64 if linear.scalars else 1)
            prepared = backend.prepare(linear)
            counts = linear.counts
            add(
                lambda m, level=level, counts=counts: m.linear_ms(params.n, level, counts),  # type: ignore[misc]
                lambda prepared=prepared, sources=sources: backend.apply(prepared, sources),  # type: ignore[misc]
            )
        product = backend.multiply(source, source)
        add(
            lambda m, level=level: m.key_switch_ms(params.n, level),  # type: ignore[misc]
            lambda product=product: backend.relinearize(product),  # type: ignore[misc]
        )
    low = backend.drop_to(fresh, 0)
    add(
        lambda m: m.exchange_ms(params.n, 2),
        lambda: (
            backend.import_ciphertext(query),
            backend.export_ciphertext(
                backend.add(low, backend.encrypt_zero(level=0, scale=backend.scale(low)))
            ),
        ),
    )
    return found


def _maps(level: int, slots: Any) -> list[LinearMap]:
    def linear(
        babies: int, giants: int, folds: int, *, repeated: bool = False, scalars: bool = False
    ) -> LinearMap:
        values: Any = 0.5 if scalars else np.tile(slots[:256], len(slots) // 256)
        if not scalars and not repeated:
            values = slots
        groups = [
            Group(
                tuple(Product(0, baby, lambda: values) for baby in range(babies + 1)),
                then=15 if giant < giants else 0,
            )
            for giant in range(giants + 1)
        ]
        targets: tuple[tuple[Group, ...], ...] = (tuple(groups),)
        if scalars:
            sums = Group(tuple(Product(s, 0, lambda: 0.5) for s in range(64)), then=0)
            targets = ((sums,),) * 32
        return LinearMap(
            level=level,
            scale=WEIGHT_SCALE,
            targets=targets,
            folds=tuple([1, 2, 4, 8][:folds]),
            scalars=scalars,
            repeats=repeated,
        )

    return [
        linear(0, 0, 0),
        linear(3, 0, 4),
        linear(3, 1, 4),
        linear(7, 1, 2, repeated=True),
        linear(7, 7, 0),
        linear(12, 3, 0, repeated=True),
        linear(12, 0, 0),
        linear(0, 0, 0, scalars=True),
    ]


def _median_ms(run: Callable[[], object], repeats: int) -> float:
    run()  # the first call takes memory
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)
