"""All claims in a row: ``python -m benchmarks service --json FILE [--quick] [--only NAME,…]``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from benchmarks.record import Outcome, chosen
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="a minute or two, for every commit")
    parser.add_argument("--only", help="names of claims, separated by commas")
    parser.add_argument("--table", type=Path, help="page whose table is rewritten from the record")


def run(options: argparse.Namespace) -> Outcome:
    """Try every claim, and print a line for each as soon as it is known."""
    effort = Effort(quick=options.quick)
    only = chosen(options.only, CLAIMS, "--only")
    claims: list[Claim] = []
    for name, tried in CLAIMS.items():
        if name not in only:
            continue
        started = time.perf_counter()
        for claim in tried(effort):
            claims.append(claim)
            verdict = {True: "holds", False: "FAILS", None: "skipped"}[claim.holds]
            print(f"{verdict:7}  {claim.name}: {claim.figure}", flush=True)
        print(f"         ({time.perf_counter() - started:.0f} s)", flush=True)
    return Outcome(
        document=[claim.to_json() for claim in claims],
        holds=all(claim.holds is not False for claim in claims),
        table="claims",
    )
