"""All claims in a row: ``python -m benchmarks service --json FILE [--quick] [--only NAME,…]``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.service import availability, hostile, leakage, performance
from benchmarks.service.row import Effort, Row

CLAIMS: Mapping[str, Callable[[Effort], list[Row]]] = {
    "fuzz": hostile.fuzz,
    "corpus": hostile.corpus,
    "openapi": hostile.openapi,
    "killed-workers": availability.killed_workers,
    "sigterm": availability.sigterm,
    "full-disk": availability.full_disk,
    "cut-uploads": availability.cut_uploads,
    "slow-clients": availability.slow_clients,
    "overload": availability.overload,
    "correctness": leakage.correctness,
    "bindings": hostile.wrong_bindings,
    "secret-canary": hostile.secret_canary,
    "ciphertexts": leakage.ciphertexts,
    "canaries": leakage.canaries,
    "key-file": hostile.key_file,
    "audit-chain": availability.audit_chain,
    "overhead": performance.overhead,
    "two-workers": performance.two_workers,
}


def run(path: Path | None, *, quick: bool, only: list[str] | None) -> bool:
    """Try every claim, print a line for each and write them as JSON; whether all hold."""
    effort = Effort(quick=quick)
    rows: list[Row] = []
    for name, claim in CLAIMS.items():
        if only is not None and name not in only:
            continue
        started = time.perf_counter()
        found = claim(effort)
        rows += found
        for row in found:
            verdict = {True: "holds", False: "FAILS", None: "skipped"}[row.holds]
            print(f"{verdict:7}  {row.name}: {row.figure}", flush=True)
        print(f"         ({time.perf_counter() - started:.0f} s)", flush=True)
    if path is not None:
        text = json.dumps([row.to_json() for row in rows], indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
    return all(row.holds is not False for row in rows)
