"""The service's limits, in one frozen object with units in the names."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final

from he_infer.errors import ParameterError
from he_infer.runtime.backends.choose import AUTO

_MAY_BE_ZERO: Final = ("queue", "drain_notice_s")
_COUNTS: Final = ("workers", "threads_per_evaluation", "replies_per_tenant")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Limits of one server; raises ParameterError for values that make no sense.

    ``backend``: auto, or a name in ``runtime.backends.choose``. ``workers``: evaluations at a
    time, each in a process of its own; ``threads_per_evaluation``: for each of them, if the
    backend can use several. ``queue``: evaluations that may wait; beyond, 503.
    ``worker_memory_bytes``: what a worker may take beyond the plans; ``evaluation_cpu_s``,
    ``evaluation_timeout_s``: processor and wall time of one evaluation. ``key_cache_bytes``,
    ``key_cache_ttl_s``: loaded keys in each worker.

    ``tokens_required``: whether requests without a token or a certificate are refused.
    ``key_quota_bytes``: stored for each tenant, arriving keys included; ``key_ttl_s``: without
    use. ``upload_ttl_s``: without a byte. ``reply_ttl_s``, ``replies_per_tenant``: how long and
    about how many are kept, for requests with an idempotency key.

    ``receive_quota_bytes``: bodies being received at one time, all together. ``body_grace_s``
    and ``body_min_bytes_per_s``: a sender may keep the server waiting for ``grace + received /
    min_rate`` seconds. ``header_timeout_s``: from connection (or the first byte of a later
    request) to complete headers. ``connections``: open at a time; beyond, 503.
    ``send_timeout_s``: most a reply may wait for its reader. ``drain_notice_s``: time between
    SIGTERM and closing the listening socket, in which readiness says 503.
    ``drain_timeout_s``: most that work in flight gets after SIGTERM.
    """

    backend: str = AUTO
    workers: int = 1
    threads_per_evaluation: int = 1
    queue: int = 8
    worker_memory_bytes: int = 8 * 2**30
    evaluation_cpu_s: float = 600.0
    evaluation_timeout_s: float = 300.0
    key_cache_bytes: int = 2 * 2**30
    key_cache_ttl_s: float = 1800.0
    tokens_required: bool = False
    key_quota_bytes: int = 4 * 2**30
    key_ttl_s: float = 7 * 86400.0
    upload_ttl_s: float = 3600.0
    reply_ttl_s: float = 600.0
    replies_per_tenant: int = 64
    receive_quota_bytes: int = 2**30
    body_grace_s: float = 7.0
    body_min_bytes_per_s: float = 64 * 1024.0
    header_timeout_s: float = 7.0
    keep_alive_s: float = 15.0
    connections: int = 4096
    send_timeout_s: float = 60.0
    drain_notice_s: float = 0.5
    drain_timeout_s: float = 300.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "backend":
                continue  # refused by name where it is made
            lowest = 0 if field.name in _MAY_BE_ZERO or isinstance(value, bool) else 1e-3
            if not math.isfinite(value) or value < lowest:
                raise ParameterError(f"{field.name} = {value}: expected at least {lowest}")
        for name in _COUNTS:
            if not 1 <= getattr(self, name) <= 256:
                raise ParameterError(f"{name} = {getattr(self, name)}: expected 1 to 256")
