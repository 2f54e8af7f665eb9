"""A backend that computes on slot values in the clear, with a noise source of choice.

With no noise it gives exact values (plain); with CKKS noise it predicts what decryption will
show (simulated). Levels, scales and Galois keys are tracked and checked as strictly as in the
encrypted backends, so a plan that runs here runs there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from he_infer.keys.evaluation import CONJUGATION_STEP
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
from he_infer.runtime.backends.linear import Encoded, LinearMap, apply_stepwise, encode_linear

ComplexArray: TypeAlias = NDArray[np.complex128]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlotCiphertext:
    """Slot values (N/2,) as decryption would show them, with their level, scale and size."""

    values: ComplexArray
    level: int
    scale: float
    size: int = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlotPlaintext:
    values: ComplexArray
    level: int
    scale: float


class Noise(Protocol):
    """Noise in slot values, (N/2,) complex, in units of the message (already over the scale)."""

    def encoding(self, scale: float) -> ComplexArray | complex: ...
    def fresh(self, level: int, scale: float) -> ComplexArray | complex: ...
    def rounding(self, scale: float, size: int) -> ComplexArray | complex: ...
    def key_switch(
        self, step: int, level: int, scale: float, *, centred: bool
    ) -> ComplexArray | complex: ...
    def flooding(self, bound: int, period: int, scale: float) -> ComplexArray | complex: ...
    def draw(self, count: int) -> FloatArray: ...
    def public(self, level: int, scale: float) -> ComplexArray | complex: ...


class SlotwiseBackend:
    """Slot arithmetic over ``params``; ``steps`` are the rotations whose keys exist (None: all)."""

    def __init__(
        self, params: CKKSParams, noise: Noise, *, steps: Collection[int] | None = None
    ) -> None:
        self._params = params
        self._noise = noise
        self._steps = None if steps is None else frozenset(steps)

    @property
    def params(self) -> CKKSParams:
        return self._params

    def encrypt(self, values: FloatArray | ComplexArray, *, scale: float) -> SlotCiphertext:
        """Encrypt (N/2,) slot values at the top level."""
        level = self._params.max_level
        noise = self._noise.encoding(scale) + self._noise.fresh(level, scale)
        noisy = np.asarray(values + noise, dtype=np.complex128)
        return SlotCiphertext(values=noisy, level=level, scale=scale)

    def decrypt(self, a: SlotCiphertext) -> ComplexArray:
        return a.values

    def encode(self, values: FloatArray | float, *, level: int, scale: float) -> SlotPlaintext:
        if isinstance(values, float):
            # One value in every slot is one coefficient: its rounding is known exactly.
            exact = isinstance(self._noise.encoding(scale), complex)
            rounded = values if exact else round(values * scale) / scale
            filled = np.full(self._params.slots, rounded, dtype=np.complex128)
            return SlotPlaintext(values=filled, level=level, scale=scale)
        check_slots(values, self._params.slots)
        noisy = np.asarray(values + self._noise.encoding(scale), dtype=np.complex128)
        return SlotPlaintext(values=noisy, level=level, scale=scale)

    def level(self, a: SlotCiphertext) -> int:
        return a.level

    def scale(self, a: SlotCiphertext) -> float:
        return a.scale

    def size(self, a: SlotCiphertext) -> int:
        return a.size

    def add(self, a: SlotCiphertext, b: SlotCiphertext) -> SlotCiphertext:
        check_addable((a.level, b.level), (a.scale, b.scale))
        return replace(a, values=a.values + b.values, size=max(a.size, b.size))

    def add_plain(self, a: SlotCiphertext, p: SlotPlaintext) -> SlotCiphertext:
        check_addable((a.level, p.level), (a.scale, p.scale))
        return replace(a, values=a.values + p.values)

    def multiply_plain(self, a: SlotCiphertext, p: SlotPlaintext) -> SlotCiphertext:
        check_level((a.level, p.level))
        return replace(a, values=a.values * p.values, scale=a.scale * p.scale)

    def multiply(self, a: SlotCiphertext, b: SlotCiphertext) -> SlotCiphertext:
        check_level((a.level, b.level))
        check_factors((a.size, b.size))
        return replace(a, values=a.values * b.values, scale=a.scale * b.scale, size=3)

    def relinearize(self, a: SlotCiphertext) -> SlotCiphertext:
        check_product(a.size)
        noise = self._noise.key_switch(0, a.level, a.scale, centred=False)
        return replace(a, values=a.values + noise, size=2)

    def rotate(self, a: SlotCiphertext, step: int, *, centred: bool = False) -> SlotCiphertext:
        check_rotatable(step, self._params.slots, a.size, self._steps)
        noise = self._noise.key_switch(step, a.level, a.scale, centred=centred)
        return replace(a, values=np.roll(a.values, -step) + noise)

    def rescale(self, a: SlotCiphertext) -> SlotCiphertext:
        check_rescalable(a.level)
        scale = a.scale / self._params.primes[a.level]
        noise = self._noise.rounding(scale, a.size)
        return replace(a, values=a.values + noise, level=a.level - 1, scale=scale)

    def drop_to(self, a: SlotCiphertext, level: int) -> SlotCiphertext:
        check_droppable(a.level, level)
        return replace(a, level=level)

    def real_part(self, a: SlotCiphertext) -> SlotCiphertext:
        check_conjugable(a.size, self._steps)
        noise = self._noise.key_switch(CONJUGATION_STEP, a.level, a.scale, centred=False)
        doubled = a.values + np.conj(a.values) + noise
        return replace(a, values=doubled / 2, scale=2 * a.scale)

    def draw(self, count: int) -> FloatArray:
        return self._noise.draw(count)

    def flood(self, a: SlotCiphertext, bound: int, *, period: int) -> SlotCiphertext:
        return replace(a, values=a.values + self._noise.flooding(bound, period, a.scale))

    def encrypt_zero(self, *, level: int, scale: float) -> SlotCiphertext:
        values = np.zeros(self._params.slots, dtype=np.complex128)
        noise = self._noise.public(level, scale)
        return SlotCiphertext(values=values + noise, level=level, scale=scale)

    def prepare(self, linear: LinearMap) -> Encoded[SlotPlaintext]:
        return encode_linear(self, linear)

    def apply(
        self, prepared: Encoded[SlotPlaintext], sources: Sequence[SlotCiphertext]
    ) -> list[SlotCiphertext]:
        # As the native evaluator does it: linear maps take centred digits.
        return apply_stepwise(
            self, prepared, sources, lambda a, step: self.rotate(a, step, centred=True)
        )

    def each(
        self,
        operation: Callable[[SlotCiphertext], SlotCiphertext],
        items: Sequence[SlotCiphertext],
    ) -> list[SlotCiphertext]:
        return [operation(item) for item in items]
