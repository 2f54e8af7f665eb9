"""Complex queries: a network with real weights answers x + iy with two real numbers a slot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attacks.ciphertext.channel import Channel, logit_places, noise_of, random_query


@dataclass(frozen=True, slots=True, kw_only=True)
class ComplexGain:
    """``ratio``: of the logits' imaginary parts to the noise, both as standard deviations.

    ``numbers``: real numbers that a logit's slot tells: 2 where imaginary parts stand out.
    """

    queries: int
    ratio: float
    numbers: int


def complex_gain(channel: Channel, *, queries: int, rng: np.random.Generator) -> ComplexGain:
    """Ask x + iy for random x and y, and look whether the answers have imaginary parts."""
    places = logit_places(channel).reshape(-1)
    noise = noise_of(channel, random_query(channel, rng))
    imaginary = []
    for _ in range(queries):
        query = random_query(channel, rng) + 1j * random_query(channel, rng).real
        imaginary.append(channel.ask(query).imag.reshape(-1)[places])
    # The noise of real queries has an imaginary part of the same size: three times it stands out.
    ratio = float(np.std(np.stack(imaginary))) / max(noise, 1e-15)
    return ComplexGain(queries=queries, ratio=ratio, numbers=2 if ratio > 3.0 else 1)
