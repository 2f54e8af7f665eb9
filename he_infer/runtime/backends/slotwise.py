"""A backend that computes on slot values in the clear, with a noise source of choice.

With no noise it gives exact values (plain); with CKKS noise it predicts what decryption will
show (simulated). Levels, scales and Galois keys are tracked and checked as strictly as in the
encrypted backends, so a plan that runs here runs there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from he_infer.keys.evaluation import CONJUGATION_STEP
from he_infer.params import CKKSParams
from he_infer.plan.ir import FloatArray
from he_infer.runtime.backends.checked import CheckedBackend, Tracked
from he_infer.runtime.backends.stepwise import Encoded, apply_stepwise

ComplexArray: TypeAlias = NDArray[np.complex128]
Slots: TypeAlias = Tracked[ComplexArray]  # slot values (N/2,) as decryption would show them


class Noise:
    """Noise in slot values, (N/2,) complex, in units of the message (already over the scale).

    This one is silent: it gives exact values. Draws are the middle of their range, which makes a
    factor of 1 and a shift of 0.
    """

    def encoding(self, scale: float) -> ComplexArray | complex:
        return 0j

    def fresh(self, level: int, scale: float) -> ComplexArray | complex:
        return 0j

    def rounding(self, scale: float, size: int) -> ComplexArray | complex:
        return 0j

    def key_switch(
        self, step: int, level: int, scale: float, *, centred: bool
    ) -> ComplexArray | complex:
        return 0j

    def flooding(self, bound: int, period: int, scale: float) -> ComplexArray | complex:
        return 0j

    def draw(self, count: int) -> FloatArray:
        return np.full(count, 0.5)

    def public(self, level: int, scale: float) -> ComplexArray | complex:
        return 0j


class SlotwiseBackend(CheckedBackend[ComplexArray, ComplexArray]):
    """Slot arithmetic over ``params``; ``steps`` are the rotations whose keys exist (None: all)."""

    def __init__(
        self, params: CKKSParams, noise: Noise, *, steps: Collection[int] | None = None
    ) -> None:
        super().__init__(params)
        self._noise = noise
        self._steps = steps

    def encrypt(self, values: FloatArray | ComplexArray, *, scale: float) -> Slots:
        """Encrypt (N/2,) slot values at the top level."""
        level = self._params.max_level
        noise = self._noise.encoding(scale) + self._noise.fresh(level, scale)
        return Tracked(np.asarray(values + noise, dtype=np.complex128), level, scale)

    def decrypt(self, a: Slots) -> ComplexArray:
        return a.value

    def draw(self, count: int) -> FloatArray:
        return self._noise.draw(count)

    def apply(self, prepared: Encoded[Slots], sources: Sequence[Slots]) -> list[Slots]:
        # As the native evaluator does it: linear maps take centred digits.
        return apply_stepwise(self, prepared, sources, self._rotate_centred)

    def _rotate_centred(self, a: Slots, step: int) -> Slots:
        self.check_rotatable(step, a.size)
        return Tracked(self._rotate(a, step, centred=True), a.level, a.scale)

    def _key_steps(self) -> Collection[int] | None:
        return self._steps

    def _encode(self, values: FloatArray | float, level: int, scale: float) -> ComplexArray:
        if isinstance(values, float):
            # One value in every slot is one coefficient: its rounding is known exactly.
            exact = isinstance(self._noise.encoding(scale), complex)
            rounded = values if exact else round(values * scale) / scale
            return np.full(self._params.slots, rounded, dtype=np.complex128)
        return np.asarray(values + self._noise.encoding(scale), dtype=np.complex128)

    def _add(self, a: Slots, b: Slots) -> ComplexArray:
        return a.value + b.value

    def _add_plain(self, a: Slots, p: Slots) -> ComplexArray:
        return a.value + p.value

    def _multiply_plain(self, a: Slots, p: Slots) -> ComplexArray:
        return a.value * p.value

    def _multiply(self, a: Slots, b: Slots) -> ComplexArray:
        return a.value * b.value

    def _relinearize(self, a: Slots) -> ComplexArray:
        return a.value + self._noise.key_switch(0, a.level, a.scale, centred=False)

    def _rotate(self, a: Slots, step: int, *, centred: bool = False) -> ComplexArray:
        noise = self._noise.key_switch(step, a.level, a.scale, centred=centred)
        return np.roll(a.value, -step) + noise

    def _rescale(self, a: Slots) -> ComplexArray:
        return a.value + self._noise.rounding(a.scale / self._params.primes[a.level], a.size)

    def _drop(self, a: Slots, level: int) -> ComplexArray:
        return a.value

    def _add_conjugate(self, a: Slots) -> ComplexArray:
        noise = self._noise.key_switch(CONJUGATION_STEP, a.level, a.scale, centred=False)
        # The scale doubles as well, so that the slots' values stay.
        return np.asarray((a.value + np.conj(a.value) + noise) / 2)

    def _flood(self, a: Slots, bound: int, period: int) -> ComplexArray:
        return a.value + self._noise.flooding(bound, period, a.scale)

    def _encrypt_zero(self, level: int, scale: float) -> ComplexArray:
        values = np.zeros(self._params.slots, dtype=np.complex128)
        return values + self._noise.public(level, scale)
