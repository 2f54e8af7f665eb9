"""Channels in numpy: a matrix over slots, with or without what a careless service leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from attacks.core.arrays import Complexes, Floats

SLOTS, FEATURES, OUTPUTS = 256, 16, 4


@dataclass
class FakeChannel:
    """Logits weights @ features + bias at the first slots; ``spill`` fills the others.

    ``real``: whether the conjugate is added; ``noise``: standard deviation in every slot.
    """

    weights: Floats
    bias: Floats
    noise: float = 1e-4
    real: bool = True
    spill: Callable[[Floats], Floats] | None = None
    inputs: int = 1
    outputs: int = 1
    slots: int = SLOTS
    batch: int = 1
    input_range: tuple[float, float] = (0.0, 1.0)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    @property
    def input_slots(self) -> NDArray[np.int32]:
        # Every feature stands in two places, and the second half of the slots is padding.
        row = np.full(SLOTS, -1, dtype=np.int32)
        row[: 2 * FEATURES] = np.tile(np.arange(FEATURES), 2)
        return row[None]

    @property
    def output_slots(self) -> NDArray[np.int32]:
        return np.arange(OUTPUTS, dtype=np.int32)

    def ask(self, slots: Complexes) -> Complexes:
        reply = np.zeros(SLOTS, dtype=np.complex128)
        if self.spill is not None:
            reply += self.spill(slots[0].real)
        # Half of the answer from each copy, as a fold does.
        features = (slots[0, :FEATURES] + slots[0, FEATURES : 2 * FEATURES]) / 2
        reply[:OUTPUTS] = self.weights @ features + self.bias
        noise = self.rng.normal(scale=self.noise, size=(2, SLOTS))
        reply += noise[0] + 1j * noise[1]
        return (reply.real.astype(np.complex128) if self.real else reply)[None]


def made(**options: object) -> FakeChannel:
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=(OUTPUTS, FEATURES)), rng.normal(size=OUTPUTS)
    return FakeChannel(weights=weights, bias=bias, **options)  # type: ignore[arg-type]
