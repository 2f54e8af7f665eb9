"""The claims about the service by name, and what tries each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from benchmarks.service import availability, hostile, leakage, performance, uploads
from benchmarks.service.claim import Claim, Effort

CLAIMS: Final[Mapping[str, Callable[[Effort], Iterator[Claim]]]] = {
    "fuzz": hostile.fuzz,
    "corpus": hostile.corpus,
    "openapi": hostile.openapi,
    "killed-workers": availability.killed_workers,
    "sigterm": availability.sigterm,
    "full-disk": uploads.full_disk,
    "cut-uploads": uploads.cut_uploads,
    "slow-clients": availability.slow_clients,
    "overload": availability.overload,
    "correctness": leakage.correctness,
    "bindings": hostile.wrong_bindings,
    "secret-canary": uploads.secret_canary,
    "ciphertexts": leakage.ciphertexts,
    "canaries": leakage.canaries,
    "key-file": hostile.key_file,
    "audit-chain": availability.audit_chain,
    "overhead": performance.overhead,
    "two-workers": performance.two_workers,
}
