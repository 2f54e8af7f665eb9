"""Queries that no record packs into: repeated features that differ, padding that is not zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from attacks.ciphertext.channel import Channel, logit_places, noise_of, valid_query
from attacks.core.arrays import Complexes, Floats

_PROBED = 24
ExactAnswers: TypeAlias = Callable[[Complexes], Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutGain:
    """``free``: numbers that a query may set and that change the answer; ``features``: those of
    valid records. ``answers``: numbers that a reply tells either way."""

    free: int
    features: int
    answers: int

    @property
    def factor(self) -> float:
        return self.free / self.features


def layout_gain(channel: Channel, *, rng: np.random.Generator) -> LayoutGain:
    """Estimate, from slots probed one at a time, how many slots an adversary sets at will."""
    places = logit_places(channel).reshape(-1)
    base = valid_query(channel, rng)
    noise = noise_of(channel, base)
    before = channel.ask(base).real.reshape(-1)[places]
    low, high = channel.input_range
    alive = 0
    for _ in range(_PROBED):
        probe = base.copy()
        row, slot = int(rng.integers(channel.inputs)), int(rng.integers(channel.slots))
        probe[row, slot] += 4.0 * (high - low)
        change = np.abs(channel.ask(probe).real.reshape(-1)[places] - before).max()
        alive += bool(change > 6.0 * noise)
    total = channel.inputs * channel.slots
    features = len(np.unique(channel.input_slots[channel.input_slots >= 0])) * channel.batch
    return LayoutGain(free=round(total * alive / _PROBED), features=features, answers=len(places))


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeReach:
    """``reach``: the largest multiple of the calibrated range still answered within ``tolerance``
    of the exact value, relative to it; beyond, replies overflow."""

    reach: float
    tolerance: float


def range_reach(
    channel: Channel,
    exact: ExactAnswers,
    *,
    rng: np.random.Generator,
    tolerance: float = 0.05,
) -> RangeReach:
    """Scale a valid query up by factors of two until the answer is wrong.

    ``exact``: the network in the clear on the same slots, (inputs, slots) → (logits,).
    """
    places = logit_places(channel).reshape(-1)
    base = valid_query(channel, rng)
    reach = 0.0
    for power in range(12):
        query = base * 2.0**power
        wanted = exact(query)
        found = channel.ask(query).real.reshape(-1)[places]
        worst = np.abs(found - wanted).max() / max(1.0, float(np.abs(wanted).max()))
        if not worst < tolerance:
            break
        reach = 2.0**power
    return RangeReach(reach=reach, tolerance=tolerance)
