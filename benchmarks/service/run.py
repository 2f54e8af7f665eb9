"""All claims in a row: ``python -m benchmarks service --json FILE [--quick] [--only NAME,…]``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks.record import Outcome, chosen
from benchmarks.service.claim import Claim, Effort


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="a minute or two, for every commit")
    parser.add_argument("--only", help="names of claims, separated by commas")
    parser.add_argument("--table", type=Path, help="page whose table is rewritten from the record")


def run(options: argparse.Namespace) -> Outcome:
    """Try every claim, and print a line for each as soon as it is known."""
    from benchmarks.service.claims import CLAIMS

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
