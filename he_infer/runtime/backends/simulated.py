"""Slot values with the noise that CKKS adds, without any cryptography.

Noise is drawn where SEAL makes it, in the canonical embedding: a polynomial with independent
coefficients of variance v has slot values of variance N·v. One ternary secret and one set of
key errors is drawn per backend, because for one key the noise of a rescale is larger in the
slots where the secret happens to be large.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np

from he_infer.params import CKKSParams
from he_infer.plan.ir import FloatArray
from he_infer.runtime.backends.slotwise import ComplexArray, Noise, SlotwiseBackend
from he_infer.runtime.encoding import embed, slot_indices

# SEAL draws errors from a centred binomial distribution over 21 pairs of bits.
ERROR_VARIANCE: Final = 10.5
UNIFORM_VARIANCE: Final = 1 / 12


class SimulatedBackend(SlotwiseBackend):
    """A backend whose values carry CKKS noise; ``rng`` draws the virtual keys and all noise."""

    def __init__(
        self,
        params: CKKSParams,
        rng: np.random.Generator,
        *,
        steps: Collection[int] | None = None,
    ) -> None:
        super().__init__(params, _CKKSNoise(params, rng), steps=steps)


class _CKKSNoise(Noise):
    def __init__(self, params: CKKSParams, rng: np.random.Generator) -> None:
        self._params = params
        self._rng = rng
        self._roots = np.exp(1j * np.pi * (2 * slot_indices(params.n) + 1) / params.n)
        self._secret = embed(rng.integers(-1, 2, size=params.n), params.n)
        self._key_errors: dict[int, ComplexArray] = {}

    def encoding(self, scale: float) -> ComplexArray:
        return self._polynomial(UNIFORM_VARIANCE) / scale

    def fresh(self, level: int, scale: float) -> ComplexArray:
        return self._polynomial(ERROR_VARIANCE) / scale

    def rounding(self, scale: float, size: int) -> ComplexArray:
        """Each component is rounded by up to ½: r0 + r1·s (+ r2·s²)."""
        total = self._polynomial(UNIFORM_VARIANCE)
        power = self._secret
        for _ in range(size - 1):
            total = total + self._polynomial(UNIFORM_VARIANCE) * power
            power = power * self._secret
        return total / scale

    def key_switch(self, step: int, level: int, scale: float, *, centred: bool) -> ComplexArray:
        """Σ_i digit_i · error_i / P, and the rounding of the division by P.

        SEAL takes digits in [0, q), not ``centred``: their mean q/2 in every coefficient is the
        polynomial q/2 · Σ X^k, large in the few slots whose root is near 1.
        """
        errors = self._errors(step)
        mean = 1 / (1 - self._roots)  # ½ · Σ X^k = ½ · 2 / (1 − ζ), because ζ^N = −1
        total = np.zeros(self._params.slots, dtype=np.complex128)
        for digit in range(level + 1):
            q = self._params.primes[digit]
            spread = self._polynomial(UNIFORM_VARIANCE)
            offset = 0.0 if centred else mean
            total += (spread + offset) * errors[digit] * (q / self._params.special_prime)
        return total / scale + self.rounding(scale, 2)

    def flooding(self, bound: int, period: int, scale: float) -> ComplexArray:
        """2 · period coefficients that are not zero, slots that repeat."""
        variance = float(bound) ** 2 / 3
        values = self._values(2 * period * variance, period) / scale
        return np.tile(values, self._params.slots // period)

    def draw(self, count: int) -> FloatArray:
        return self._rng.uniform(size=count)

    def public(self, level: int, scale: float) -> ComplexArray:
        """SEAL encrypts zero one level higher and divides, which leaves the rounding."""
        if level == self._params.max_level:
            dropped = float(self._params.special_prime)
        else:
            dropped = float(self._params.primes[level + 1])
        # u·e + e0 + e1·s with ternary u: three products' worth of error, before the division.
        variance = ERROR_VARIANCE * (1 + 4 * self._params.n / 3)
        return self._polynomial(variance) / (dropped * scale) + self.rounding(scale, 2)

    def _errors(self, step: int) -> ComplexArray:
        """The embedded errors of one key-switching key, (digits, N/2)."""
        if step not in self._key_errors:
            digits = range(len(self._params.primes))
            self._key_errors[step] = np.stack([self._polynomial(ERROR_VARIANCE) for _ in digits])
        return self._key_errors[step]

    def _polynomial(self, variance: float) -> ComplexArray:
        """Slot values of a polynomial with independent coefficients of this variance."""
        return self._values(self._params.n * variance, self._params.slots)

    def _values(self, variance: float, count: int) -> ComplexArray:
        pair = self._rng.normal(scale=np.sqrt(variance / 2), size=(2, count))
        return np.asarray(pair[0] + 1j * pair[1])
