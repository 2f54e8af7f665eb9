"""Noise that depends on weights: two networks that agree on a query, told apart by their noise.

Source of the effect: Peng, arXiv:1906.07127, on the noise of homomorphic evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from attacks.ciphertext.channel import Channel
from attacks.core.arrays import Complexes, Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseRatio:
    """Variance of one network's noise over the other's, with its 95 % interval over slots."""

    ratio: float
    low: float
    high: float
    replies: int

    @property
    def differs(self) -> bool:
        return not self.low <= 1.0 <= self.high


def noise_ratio(first: Channel, second: Channel, *, query: Complexes, replies: int) -> NoiseRatio:
    """Ask both the same ``query`` again and again and compare their slots' variances.

    Variances of a few hundred blocks of slots are compared by a t-test of their logarithms:
    neighbouring slots share noise, so single slots would count too often.
    """
    logs = [_log_variances(channel, query, replies) for channel in (first, second)]
    difference = float(logs[0].mean() - logs[1].mean())
    error = float(np.sqrt(sum(log.var(ddof=1) / len(log) for log in logs)))
    wide = float(stats.norm.ppf(0.975)) * error
    return NoiseRatio(
        ratio=float(np.exp(difference)),
        low=float(np.exp(difference - wide)),
        high=float(np.exp(difference + wide)),
        replies=replies,
    )


def _log_variances(channel: Channel, query: Complexes, replies: int) -> Floats:
    slots = np.stack([channel.ask(query).real.reshape(-1) for _ in range(replies)])
    centred = slots - slots.mean(axis=0)
    blocks = np.array_split((centred**2).sum(axis=0) / (replies - 1), 128)
    return np.log([block.mean() for block in blocks])
