"""What a server keeps for its clients: loaded evaluation keys, bounded in bytes and in time.

Entries leave in the order least recently used, when their time without use is over, or when the
client deletes them. An entry that an evaluation has pinned stays until the evaluation ends.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from he_infer.errors import HEInferError

T = TypeVar("T")


class UnknownKeysError(HEInferError):
    """No keys are stored under this name: never uploaded, expired, deleted or evicted."""


class StoreFullError(HEInferError):
    """The byte quota is taken by entries that are in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyName:
    """What stored keys are bound to: the bytes' SHA-256, parameters and list of keys."""

    digest: str
    params_digest: str
    levels_digest: str


@dataclass(slots=True, kw_only=True)
class _Entry(Generic[T]):
    value: T
    size_bytes: int
    last_use: float
    pins: int = 0


class KeyStore(Generic[T]):
    """An LRU of loaded keys with a byte quota and a time to live; safe to share among threads.

    ``quota_bytes``: most bytes held, entries in use included. ``ttl_s``: seconds without use
    after which an entry expires. ``clock``: seconds, monotonic.
    """

    def __init__(
        self, *, quota_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if quota_bytes <= 0 or ttl_s <= 0:
            raise ValueError("the key store needs a positive quota and time to live")
        self._quota_bytes = quota_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[KeyName, _Entry[T]] = OrderedDict()
        self._deleted_in_use_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of all entries, those deleted while still in use included."""
        with self._lock:
            return self._held_bytes()

    def __len__(self) -> int:
        with self._lock:
            self._expire()
            return len(self._entries)

    def contains(self, name: KeyName) -> bool:
        """Whether the keys are here; counts as a use, so that a HEAD keeps them alive."""
        with self._lock:
            self._expire()
            entry = self._entries.get(name)
            if entry is None:
                return False
            self._touch(name, entry)
            return True

    def put(self, name: KeyName, value: T, *, size_bytes: int) -> None:
        """Store ``value``, evicting what was least recently used; raises StoreFullError.

        Storing a name again keeps the first value: the name binds the bytes.
        """
        with self._lock:
            self._expire()
            present = self._entries.get(name)
            if present is not None:
                self._touch(name, present)
                return
            self._make_room(size_bytes)
            self._entries[name] = _Entry(value=value, size_bytes=size_bytes, last_use=self._clock())

    @contextmanager
    def pinned(self, name: KeyName) -> Iterator[T]:
        """The keys, held in place for the duration; raises UnknownKeysError."""
        with self._lock:
            self._expire()
            entry = self._entries.get(name)
            if entry is None:
                raise UnknownKeysError("these evaluation keys are not here: upload them (again)")
            entry.pins += 1
            self._touch(name, entry)
        try:
            yield entry.value
        finally:
            with self._lock:
                entry.pins -= 1
                entry.last_use = self._clock()
                if self._entries.get(name) is not entry and entry.pins == 0:
                    self._deleted_in_use_bytes -= entry.size_bytes

    def delete(self, name: KeyName) -> bool:
        """Forget the keys; an evaluation that uses them finishes. False if they are not here."""
        with self._lock:
            self._expire()
            if name not in self._entries:
                return False
            self._remove(name)
            return True

    def _touch(self, name: KeyName, entry: _Entry[T]) -> None:
        entry.last_use = self._clock()
        self._entries.move_to_end(name)

    def _held_bytes(self) -> int:
        stored = sum(entry.size_bytes for entry in self._entries.values())
        return stored + self._deleted_in_use_bytes

    def _remove(self, name: KeyName) -> None:
        entry = self._entries.pop(name)
        if entry.pins:
            self._deleted_in_use_bytes += entry.size_bytes

    def _expire(self) -> None:
        oldest = self._clock() - self._ttl_s
        stale = [
            name
            for name, entry in self._entries.items()
            if entry.pins == 0 and entry.last_use < oldest
        ]
        for name in stale:
            self._remove(name)

    def _make_room(self, size_bytes: int) -> None:
        idle = [name for name, entry in self._entries.items() if entry.pins == 0]
        in_use = self._held_bytes() - sum(self._entries[name].size_bytes for name in idle)
        if in_use + size_bytes > self._quota_bytes:
            raise StoreFullError(
                f"{size_bytes} bytes of keys do not fit a quota of {self._quota_bytes}, of which "
                f"{in_use} are in use: try later, or raise the quota"
            )
        for name in idle:
            if self._held_bytes() + size_bytes <= self._quota_bytes:
                break
            self._remove(name)
