"""What the attacks on ciphertexts run on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from attacks.ciphertext.channel import Channel
from attacks.ciphertext.key_recovery import Seen
from attacks.core.arrays import Complexes, Floats


class Bench(Protocol):
    """What the suite attacks. ``defended``, ``control``: one network under a plan with all
    defences and under one without any; ``bias``: of its last layer, to judge by."""

    @property
    def defended(self) -> Channel: ...
    @property
    def control(self) -> Channel: ...
    @property
    def bias(self) -> Floats: ...
    @property
    def records_carried(self) -> int:
        """Real records whose answers one query can return."""
        ...

    @property
    def records_charged(self) -> int: ...
    def exact(self, slots: Complexes) -> Floats:
        """The network in the clear on the slots of a valid query: its logits in reply order."""
        ...

    def alike(self, *, defended: bool) -> tuple[Channel, Channel]:
        """Two networks of one shape, of different weights, that agree on a query of zeros."""
        ...

    def timers(self) -> tuple[Callable[[], float], Callable[[], float]]:
        """Evaluations of the two, defended, in milliseconds of the server."""
        ...

    def seen(self, count: int) -> Sequence[Seen]:
        """Ciphertexts of replies with their decryptions."""
        ...

    def released(self, seen: Seen) -> Complexes:
        """A decryption's slots as the client gives them to others."""
        ...

    def observed(self, count: int) -> tuple[list[bytes], list[float], NDArray[np.int64]]:
        """Query envelopes, evaluation times and the classes of their records."""
        ...

    def reply_shapes(self, count: int) -> set[tuple[int, float, int]]:
        """(level, scale, bytes) of replies to very different queries."""
        ...
