"""Slots outside the reply: do they tell more than the logits?

Two questions. How many independent numbers do all slots carry, against those that the logits
carry? And does the last layer's bias stand somewhere, to be read without a question about it?
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attacks.ciphertext.channel import Channel, logit_places, noise_of, random_query, silent_slots
from attacks.core.arrays import Floats

_MARGIN = 1.5  # over the largest singular value that noise alone has
_RECOVERED = 0.1  # error over the biases' own spread
_SAMPLE = 8  # replies that tell repeated slots from others
_PERMUTATIONS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRank:
    """Independent numbers in ``queries`` replies above the ``noise`` (standard deviation)."""

    queries: int
    all_slots: int
    logits: int
    noise: float


def slot_rank(channel: Channel, *, queries: int, rng: np.random.Generator) -> SlotRank:
    """Rank of all slots' real parts above the noise floor, against that of the logits.

    Noise of standard deviation σ in a matrix (m, n) has no singular value much beyond
    σ (√m + √n) (Davidson and Szarek 2001), which is the floor.
    """
    noise = noise_of(channel, random_query(channel, rng))
    replies = np.stack(
        [channel.ask(random_query(channel, rng)).real.reshape(-1) for _ in range(queries)]
    )
    logits = replies[:, logit_places(channel).reshape(-1)]
    return SlotRank(
        queries=queries,
        all_slots=_rank(replies, noise),
        logits=_rank(logits, noise),
        noise=noise,
    )


def _rank(replies: Floats, noise: float) -> int:
    centred = replies - replies.mean(axis=0)
    values = np.linalg.svd(centred, compute_uv=False)
    floor = _MARGIN * noise * (np.sqrt(replies.shape[0]) + np.sqrt(replies.shape[1]))
    return int((values > floor).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasRecovery:
    """``error``: largest, over the biases' standard deviation (1 is a guess of their mean).

    ``p_value``: how often biases in another order fit as well. ``places``: silent slots read.
    """

    replies: int
    places: int
    error: float
    p_value: float

    @property
    def recovered(self) -> bool:
        return self.error < _RECOVERED


def bias_recovery(
    channel: Channel, bias: Floats, *, replies: int, rng: np.random.Generator
) -> BiasRecovery:
    """Read the last layer's bias (outputs,) off the slots that repeat no logit.

    The adversary knows how a naive product repeats it (slot s holds bias s mod outputs) and takes
    the median of each class of slots, averaged over all replies. ``bias`` only judges.
    """
    total = np.zeros(channel.outputs * channel.slots)
    sample = []
    for index in range(replies):
        reply = channel.ask(random_query(channel, rng)).real.reshape(-1)
        total += reply
        if index < _SAMPLE:
            sample.append(reply)
    while len(sample) < 2:  # one reply tells too little of what repeats what
        sample.append(channel.ask(random_query(channel, rng)).real.reshape(-1))
    silent = silent_slots(channel, np.stack(sample))
    average = total / replies
    feature = np.arange(channel.slots) // channel.batch
    classes = np.tile(feature % len(bias), channel.outputs)
    chosen = [average[silent & (classes == j)] for j in range(len(bias))]
    if not silent.any() or min(map(len, chosen)) == 0:
        return BiasRecovery(replies=replies, places=int(silent.sum()), error=1.0, p_value=1.0)
    found = np.array([np.median(values) for values in chosen])
    spread = max(float(bias.std()), 1e-12)
    error = float(np.abs(found - bias).max()) / spread
    orders = rng.permuted(np.tile(bias, (_PERMUTATIONS, 1)), axis=1)
    fits = ((found - orders) ** 2).sum(axis=1)
    own = ((found - bias) ** 2).sum()
    p_value = float(1 + (fits <= own).sum()) / (1 + _PERMUTATIONS)
    return BiasRecovery(replies=replies, places=int(silent.sum()), error=error, p_value=p_value)
