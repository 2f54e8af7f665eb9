"""Counts operations and predicts their time; its ciphertexts are levels and scales alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TypeAlias

import numpy as np

from he_infer.params import CKKSParams
from he_infer.plan.ir import FloatArray
from he_infer.runtime.backends.checked import CheckedBackend, Tracked
from he_infer.runtime.backends.linear import LinearMap
from he_infer.runtime.costs import CostModel

NoValue: TypeAlias = Tracked[None]


class CostBackend(CheckedBackend[None, None]):
    """``counts``: operations by name; ``milliseconds``: their predicted total."""

    def __init__(
        self, params: CKKSParams, model: CostModel, *, steps: Collection[int] | None = None
    ) -> None:
        super().__init__(params)
        self._model = model
        self._steps = steps
        self.counts: Counter[str] = Counter()
        self.milliseconds = 0.0

    @property
    def key_switches(self) -> int:
        rotations = ("rotate", "hoisted rotate", "giant step", "fold")
        return self.counts["relinearize"] + sum(self.counts[name] for name in rotations)

    def fresh(self, *, scale: float) -> NoValue:
        """A ciphertext as the client encrypts it."""
        return Tracked(None, self._params.max_level, scale)

    def draw(self, count: int) -> FloatArray:
        return np.full(count, 0.5)

    def prepare(self, linear: LinearMap) -> LinearMap:
        return linear

    def apply(self, prepared: LinearMap, sources: Sequence[NoValue]) -> list[NoValue]:
        counts, first = prepared.counts, sources[0]
        self.check_sources(prepared, sources)
        for step in prepared.rotations:
            self.check_rotatable(step, first.size)
        n = self._params.n
        self.milliseconds += self._model.linear_ms(n, prepared.level, counts, size=first.size)
        self.counts["hoisted rotate"] += counts.babies
        self.counts["giant step"] += counts.giants
        self.counts["fold"] += counts.folds
        self.counts["multiply_plain"] += counts.products + counts.numbers
        self.counts["rescale"] += counts.targets
        if first.size > 2:
            self.counts["relinearize"] += counts.targets
        scale = first.scale * prepared.scale / self._params.primes[prepared.level]
        return [Tracked(None, prepared.level - 1, scale)] * counts.targets

    def _key_steps(self) -> Collection[int] | None:
        return self._steps

    def _encode(self, values: FloatArray | float, level: int, scale: float) -> None:
        pass

    def _add(self, a: NoValue, b: NoValue) -> None:
        self._spend("add", self._model.add_ms(self._params.n, a.level, a.size))

    def _add_plain(self, a: NoValue, p: NoValue) -> None:
        self._spend("add_plain", self._model.add_ms(self._params.n, a.level, 1))

    def _multiply_plain(self, a: NoValue, p: NoValue) -> None:
        price = self._model.multiply_plain_ms(self._params.n, a.level, a.size)
        self._spend("multiply_plain", price)

    def _multiply(self, a: NoValue, b: NoValue) -> None:
        price = self._model.square_ms if a is b else self._model.multiply_ms
        self._spend("multiply", price(self._params.n, a.level))

    def _relinearize(self, a: NoValue) -> None:
        self._spend("relinearize", self._model.key_switch_ms(self._params.n, a.level))

    def _rotate(self, a: NoValue, step: int) -> None:
        self._spend("rotate", self._model.key_switch_ms(self._params.n, a.level))

    def _rescale(self, a: NoValue) -> None:
        self._spend("rescale", self._model.rescale_ms(self._params.n, a.level, a.size))

    def _drop(self, a: NoValue, level: int) -> None:
        pass

    def _add_conjugate(self, a: NoValue) -> None:
        self._spend("conjugate", self._model.key_switch_ms(self._params.n, a.level))

    def _flood(self, a: NoValue, bound: int, period: int) -> None:
        self._spend("flood", self._model.exchange_ms(self._params.n, 1) / 2)

    def _encrypt_zero(self, level: int, scale: float) -> None:
        self._spend("encrypt zero", self._model.exchange_ms(self._params.n, 1))

    def _spend(self, name: str, milliseconds: float) -> None:
        self.counts[name] += 1
        self.milliseconds += milliseconds
