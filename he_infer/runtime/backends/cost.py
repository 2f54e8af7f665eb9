"""Counts operations and predicts their time; its ciphertexts are levels and scales alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from he_infer.params import CKKSParams
from he_infer.plan.ir import FloatArray
from he_infer.runtime.backends.base import (
    check_addable,
    check_conjugable,
    check_droppable,
    check_factors,
    check_level,
    check_product,
    check_rescalable,
    check_rotatable,
    check_slots,
)
from he_infer.runtime.backends.linear import LinearMap
from he_infer.runtime.costs import CostModel


@dataclass(frozen=True, slots=True, kw_only=True)
class CostCiphertext:
    level: int
    scale: float
    size: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CostPlaintext:
    level: int
    scale: float


class CostBackend:
    """``counts``: operations by name; ``milliseconds``: their predicted total."""

    def __init__(
        self, params: CKKSParams, model: CostModel, *, steps: Collection[int] | None = None
    ) -> None:
        self._params = params
        self._model = model
        self._steps = None if steps is None else frozenset(steps)
        self.counts: Counter[str] = Counter()
        self.milliseconds = 0.0

    @property
    def params(self) -> CKKSParams:
        return self._params

    @property
    def key_switches(self) -> int:
        rotations = ("rotate", "hoisted rotate", "giant step", "fold")
        return self.counts["relinearize"] + sum(self.counts[name] for name in rotations)

    def encrypt(self, values: FloatArray, *, scale: float) -> CostCiphertext:
        del values
        return CostCiphertext(level=self._params.max_level, scale=scale)

    def encode(self, values: FloatArray | float, *, level: int, scale: float) -> CostPlaintext:
        if not isinstance(values, float):
            check_slots(values, self._params.slots)
        return CostPlaintext(level=level, scale=scale)

    def level(self, a: CostCiphertext) -> int:
        return a.level

    def scale(self, a: CostCiphertext) -> float:
        return a.scale

    def size(self, a: CostCiphertext) -> int:
        return a.size

    def add(self, a: CostCiphertext, b: CostCiphertext) -> CostCiphertext:
        check_addable((a.level, b.level), (a.scale, b.scale))
        self._spend("add", self._model.add_ms(self._params.n, a.level, a.size))
        return replace(a, size=max(a.size, b.size))

    def add_plain(self, a: CostCiphertext, p: CostPlaintext) -> CostCiphertext:
        check_addable((a.level, p.level), (a.scale, p.scale))
        self._spend("add_plain", self._model.add_ms(self._params.n, a.level, 1))
        return a

    def multiply_plain(self, a: CostCiphertext, p: CostPlaintext) -> CostCiphertext:
        check_level((a.level, p.level))
        price = self._model.multiply_plain_ms(self._params.n, a.level, a.size)
        self._spend("multiply_plain", price)
        return replace(a, scale=a.scale * p.scale)

    def multiply(self, a: CostCiphertext, b: CostCiphertext) -> CostCiphertext:
        check_level((a.level, b.level))
        check_factors((a.size, b.size))
        model, n = self._model, self._params.n
        price = model.square_ms if a is b else model.multiply_ms
        self._spend("multiply", price(n, a.level))
        return replace(a, scale=a.scale * b.scale, size=3)

    def relinearize(self, a: CostCiphertext) -> CostCiphertext:
        check_product(a.size)
        self._spend("relinearize", self._model.key_switch_ms(self._params.n, a.level))
        return replace(a, size=2)

    def rotate(self, a: CostCiphertext, step: int) -> CostCiphertext:
        check_rotatable(step, self._params.slots, a.size, self._steps)
        self._spend("rotate", self._model.key_switch_ms(self._params.n, a.level))
        return a

    def rescale(self, a: CostCiphertext) -> CostCiphertext:
        check_rescalable(a.level)
        self._spend("rescale", self._model.rescale_ms(self._params.n, a.level, a.size))
        return replace(a, level=a.level - 1, scale=a.scale / self._params.primes[a.level])

    def drop_to(self, a: CostCiphertext, level: int) -> CostCiphertext:
        check_droppable(a.level, level)
        return replace(a, level=level)

    def real_part(self, a: CostCiphertext) -> CostCiphertext:
        check_conjugable(a.size, self._steps)
        self._spend("conjugate", self._model.key_switch_ms(self._params.n, a.level))
        return replace(a, scale=2 * a.scale)

    def draw(self, count: int) -> FloatArray:
        return np.full(count, 0.5)

    def flood(self, a: CostCiphertext, bound: int, *, period: int) -> CostCiphertext:
        self._spend("flood", self._model.exchange_ms(self._params.n, 1) / 2)
        return a

    def encrypt_zero(self, *, level: int, scale: float) -> CostCiphertext:
        self._spend("encrypt zero", self._model.exchange_ms(self._params.n, 1))
        return CostCiphertext(level=level, scale=scale)

    def prepare(self, linear: LinearMap) -> LinearMap:
        return linear

    def apply(self, prepared: LinearMap, sources: Sequence[CostCiphertext]) -> list[CostCiphertext]:
        check_rescalable(prepared.level)
        counts, first = prepared.counts, sources[0]
        for source in sources:
            check_level((source.level, prepared.level))
            check_addable((source.level, first.level), (source.scale, first.scale))
        steps = {p.rotation for groups in prepared.targets for g in groups for p in g.products}
        steps |= {group.then for groups in prepared.targets for group in groups}
        for step in (steps | set(prepared.folds)) - {0}:
            check_rotatable(step, self._params.slots, first.size, self._steps)
        n = self._params.n
        self.milliseconds += self._model.linear_ms(n, prepared.level, counts, size=first.size)
        self.counts["hoisted rotate"] += counts.babies
        self.counts["giant step"] += counts.giants
        self.counts["fold"] += counts.folds
        self.counts["multiply_plain"] += counts.products + counts.numbers
        self.counts["rescale"] += counts.targets
        if first.size > 2:
            self.counts["relinearize"] += counts.targets
        level, scale = prepared.level, first.scale * prepared.scale
        result = CostCiphertext(level=level - 1, scale=scale / self._params.primes[level])
        return [result] * counts.targets

    def each(
        self,
        operation: Callable[[CostCiphertext], CostCiphertext],
        items: Sequence[CostCiphertext],
    ) -> list[CostCiphertext]:
        return [operation(item) for item in items]

    def _spend(self, name: str, milliseconds: float) -> None:
        self.counts[name] += 1
        self.milliseconds += milliseconds
