"""What attacks on ciphertexts ask: a service that takes slots and returns all decrypted slots."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from attacks.core.arrays import Complexes, Floats

FALSE_ALARM = 1e-3  # chance at which a service that tells nothing is said to tell something
_REPEATS = 6  # of one query, to measure the noise


class Channel(Protocol):
    """A service for one client that keeps to no layout.

    ``inputs``, ``outputs``: ciphertexts of a query and of a reply; ``slots``: of each;
    ``batch``: records of a query. A feature slot f of ciphertext c holds record r at slot
    f · batch + r. ``input_slots``: (inputs, slots / batch), the feature of each feature slot or
    −1; ``output_slots``: (outputs of the network,), c · (slots / batch) + f of each logit;
    ``input_range``: of valid features.
    """

    @property
    def inputs(self) -> int: ...
    @property
    def outputs(self) -> int: ...
    @property
    def slots(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def input_slots(self) -> NDArray[np.int32]: ...
    @property
    def output_slots(self) -> NDArray[np.int32]: ...
    @property
    def input_range(self) -> tuple[float, float]: ...

    def ask(self, slots: Complexes) -> Complexes:
        """(inputs, slots) encrypted → (outputs, slots) decrypted, whatever is in them."""
        ...


def random_query(channel: Channel, rng: np.random.Generator) -> Complexes:
    """Slots filled with values in range, without regard to what the layout repeats or leaves 0."""
    low, high = channel.input_range
    return rng.uniform(low, high, (channel.inputs, channel.slots)).astype(np.complex128)


def valid_query(channel: Channel, rng: np.random.Generator) -> Complexes:
    """Slots that some records could have been packed into."""
    low, high = channel.input_range
    features = int(channel.input_slots.max()) + 1
    records = rng.uniform(low, high, (features + 1, channel.batch))
    records[-1] = 0.0  # what feature −1 reads
    packed = records[channel.input_slots]
    return packed.reshape(channel.inputs, channel.slots).astype(np.complex128)


def logit_places(channel: Channel) -> NDArray[np.int64]:
    """(batch, outputs of the network) places of the logits in the flattened reply."""
    places = channel.output_slots.astype(np.int64)[None, :] * channel.batch
    return np.asarray(places + np.arange(channel.batch)[:, None])


def noise_of(channel: Channel, query: Complexes) -> float:
    """Standard deviation of a slot's real part over fresh encryptions of one query."""
    replies = np.stack([channel.ask(query).real for _ in range(_REPEATS)])
    return float(np.sqrt(replies.var(axis=0, ddof=1).mean()))


def silent_slots(channel: Channel, replies: Floats) -> NDArray[np.bool_]:
    """Slots (outputs · slots,) that repeat no logit, judged by (queries, outputs · slots) replies.

    A reply may legitimately repeat its logits through all slots: those tell nothing new.
    """
    logits = replies[:, logit_places(channel).reshape(-1)]
    scale = max(float(np.abs(logits).max()), 1e-12)
    repeated = np.zeros(replies.shape[1], dtype=bool)
    for column in logits.T:
        repeated |= np.abs(replies - column[:, None]).max(axis=0) < 0.02 * scale
    return ~repeated
