"""The service's limits, in one frozen object with units in the names."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from he_infer.backends.choose import AUTO
from he_infer.errors import ParameterError


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Limits of one server process; raises ParameterError for values that make no sense.

    ``backend``: auto, native or seal. ``evaluation_threads``: evaluations at a time;
    ``threads_per_evaluation``: of the native backend, for each of them. ``queue``:
    evaluations that may wait; beyond, 503. ``key_quota_bytes``, ``key_ttl_s``: see KeyStore.
    ``receive_quota_bytes``: bodies being received at one time, all together. ``body_grace_s``
    and ``body_min_bytes_per_s``: a sender may keep the server waiting for ``grace + received /
    min_rate`` seconds. ``header_timeout_s``: from connection (or the first byte of a later
    request) to complete headers.
    ``send_timeout_s``: most a reply may wait for its reader. ``drain_notice_s``: time between
    SIGTERM and closing the listening socket, in which readiness says 503.
    ``drain_timeout_s``: most that work in flight gets after SIGTERM.
    """

    backend: str = AUTO
    evaluation_threads: int = 1
    threads_per_evaluation: int = 1
    queue: int = 8
    key_quota_bytes: int = 4 * 2**30
    key_ttl_s: float = 3600.0
    receive_quota_bytes: int = 2**30
    body_grace_s: float = 10.0
    body_min_bytes_per_s: float = 64 * 1024.0
    header_timeout_s: float = 10.0
    keep_alive_s: float = 15.0
    send_timeout_s: float = 60.0
    drain_notice_s: float = 0.5
    drain_timeout_s: float = 300.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "backend":
                continue  # refused by name where it is made
            lowest = 0 if field.name in ("queue", "drain_notice_s") else 1e-3
            if not math.isfinite(value) or value < lowest:
                raise ParameterError(f"{field.name} = {value}: expected at least {lowest}")
        for name in ("evaluation_threads", "threads_per_evaluation"):
            if not 1 <= getattr(self, name) <= 256:
                raise ParameterError(f"{name} = {getattr(self, name)}: expected 1 to 256")
