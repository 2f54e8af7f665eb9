"""Exact slot values: what the plan computes if CKKS had no noise."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from he_infer.params import CKKSParams
from he_infer.plan.ir import FloatArray
from he_infer.runtime.backends.slotwise import SlotwiseBackend


class _Noiseless:
    def encoding(self, scale: float) -> complex:
        return 0j

    def fresh(self, level: int, scale: float) -> complex:
        return 0j

    def rounding(self, scale: float, size: int) -> complex:
        return 0j

    def key_switch(self, step: int, level: int, scale: float, *, centred: bool) -> complex:
        return 0j

    def flooding(self, bound: int, period: int, scale: float) -> complex:
        return 0j

    def draw(self, count: int) -> FloatArray:
        """The middle of the range: a factor of 1, a shift of 0."""
        return np.full(count, 0.5)

    def public(self, level: int, scale: float) -> complex:
        return 0j


class PlainBackend(SlotwiseBackend):
    """A backend without cryptography and without noise."""

    def __init__(self, params: CKKSParams, *, steps: Collection[int] | None = None) -> None:
        super().__init__(params, _Noiseless(), steps=steps)
