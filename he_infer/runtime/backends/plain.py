"""Exact slot values: what the plan computes if CKKS had no noise."""

from __future__ import annotations

from collections.abc import Collection

from he_infer.params import CKKSParams
from he_infer.runtime.backends.slotwise import Noise, SlotwiseBackend


class PlainBackend(SlotwiseBackend):
    """A backend without cryptography and without noise."""

    def __init__(self, params: CKKSParams, *, steps: Collection[int] | None = None) -> None:
        super().__init__(params, Noise(), steps=steps)
