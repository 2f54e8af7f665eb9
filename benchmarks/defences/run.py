"""What defences of a served model cost the adversary, in records, and what they cost the owner.

    for each defence      in the clear, wrapped: every adversary with growing budgets, until 99 %
                          of the labels agree on test records and on uniform inputs
                          encrypted: levels, bits of the first prime, milliseconds, real keys

There are two kinds of adversary. One asks within the interval that inputs are meant to lie in. The
other leaves it as far as replies stay right, which no server that cannot read queries can prevent.
How far that is depends on the plan's first prime, and it is measured with real keys.
``benchmarks.defences.live`` repeats the cheapest adversaries over the service.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.record import Outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--only", help="names of defences, separated by commas; all by default")
    add("--attacks", help="names of attacks, separated by commas; all by default")
    add("--noise-std", type=float, default=0.5, help="standard deviation of added noise, on logits")
    add("--most", type=int, default=32000, help="records that an adversary may ask")
    add("--live", type=Path, help="repeat a record's cheapest adversaries against served plans")
    add("--more", type=float, default=1.0, help="so many times the records of --live's record")
    add("--labels", type=int, nargs="*", default=[16000], help="labels-only budgets")
    add("--repeats", type=int, default=15, help="timed evaluations of each plan")
    add("--seed", type=int, default=0, help="of attacks and of the defences' draws")
    add("--threads", type=int, default=1, help="of torch")


def run(options: argparse.Namespace) -> Outcome:
    """Search in the clear, or repeat the record that ``--live`` names against the service."""
    from benchmarks.defences import live, search, table

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if options.live is not None:
        found = live.run(options, tell)
        return Outcome(document=found, lines=table.live(found))
    found = search.run(options, tell)
    return Outcome(document=found, lines=table.lines(found))
