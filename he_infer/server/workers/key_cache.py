"""Loaded evaluation keys that a worker keeps in memory, bounded in bytes and in time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from he_infer.server.state.key_index import KeyName

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class _Entry(Generic[T]):
    value: T
    size_bytes: int
    last_use: float


class KeyCache(Generic[T]):
    """A cache that drops what was least recently used; safe to share among threads.

    ``quota_bytes``: most bytes held. ``ttl_s``: seconds without use after which an entry expires.
    ``clock``: seconds, monotonic. An evaluation that uses an entry keeps it in memory until it
    ends, whether or not the entry has left the cache by then.
    """

    def __init__(
        self, *, quota_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._quota_bytes = quota_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[KeyName, _Entry[T]] = OrderedDict()

    def get(self, name: KeyName) -> T | None:
        """The keys, if they are here; counts as a use."""
        with self._lock:
            self._drop(0)
            entry = self._entries.get(name)
            if entry is None:
                return None
            entry.last_use = self._clock()
            self._entries.move_to_end(name)
            return entry.value

    def put(self, name: KeyName, value: T, *, size_bytes: int) -> None:
        """Keep ``value``, unless it is larger than the whole cache or its name is here already."""
        with self._lock:
            if name not in self._entries and size_bytes <= self._quota_bytes:
                self._drop(size_bytes)
                self._entries[name] = _Entry(
                    value=value, size_bytes=size_bytes, last_use=self._clock()
                )

    def _drop(self, room_bytes: int) -> None:
        """Drop, from the least recently used on, what expired or stands in the way."""
        oldest = self._clock() - self._ttl_s
        held = sum(entry.size_bytes for entry in self._entries.values())
        while self._entries:
            name, entry = next(iter(self._entries.items()))
            if entry.last_use >= oldest and held + room_bytes <= self._quota_bytes:
                break
            held -= entry.size_bytes
            del self._entries[name]
