"""Every figure of the documentation is a record that one of these commands writes.

    python -m benchmarks accuracy --case mnist-lola --backend simulated --records 1000
    python -m benchmarks accuracy --case tutorial-cnn --http --batch 1024 --records 1000
    python -m benchmarks latency --case tutorial-cnn --threads 1,2 --against tenseal,seal
    python -m benchmarks throughput --case mnist-lola --threads 2 --batch 4096
    python -m benchmarks primitives --n 8192 --path ifma,scalar
    python -m benchmarks service --quick
    python -m benchmarks sizing --case tutorial-cnn
    python -m benchmarks leakage --reference
    python -m benchmarks leakage --paired --data digits,mnist,fashion-mnist
    python -m benchmarks defences --json FILE

Peers run on one thread: TenSEAL's context and torch are told so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import torch

from attacks.errors import AttackError
from benchmarks import record
from benchmarks.defences import run as defences
from benchmarks.inference import accuracy, latency, primitives, throughput
from benchmarks.leakage import run as leakage
from benchmarks.record import Outcome
from benchmarks.service import run as service
from benchmarks.service import sizing
from he_infer.errors import HEInferError


class Measurement(Protocol):
    """What a module offers that is one command.

    The attack suite takes seconds and much memory to import. A command that needs it imports it in
    ``run``, so that the others neither wait for it nor report its memory as theirs.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, options: argparse.Namespace) -> Outcome: ...


MEASUREMENTS: Final[Mapping[str, tuple[str, Measurement]]] = {
    "accuracy": ("logit error and label agreement of a case", accuracy),
    "latency": ("one image per query, beside other engines if asked", latency),
    "throughput": ("as many images in one query as the ring has slots", throughput),
    "primitives": ("operations on ciphertexts, ours beside SEAL's", primitives),
    "service": ("the claims about the service, each tried against a real one", service),
    "sizing": ("what a deployment takes, without running anything", sizing),
    "leakage": ("published attacks reproduced, and every attack on every twin", leakage),
    "defences": ("what serving defences cost the adversary and the owner", defences),
}


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; the options' ``measurement`` names the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="measurement", required=True)
    for name, (summary, measurement) in MEASUREMENTS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary}.")
        measurement.add_arguments(command)
        command.add_argument("--json", type=Path, help="write the record here")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write ``--json`` and ``--table``, print; 1 if a bar was missed, 2 for an error."""
    options = build_parser().parse_args(arguments)
    _, measurement = MEASUREMENTS[options.measurement]
    threads = getattr(options, "threads", None)
    if threads is not None:
        torch.set_num_threads(max(threads) if isinstance(threads, tuple) else threads)
    try:
        outcome = measurement.run(options)
        if options.json is not None:
            record.write_json(options.json, outcome.document)
            page = getattr(options, "table", None)
            if page is not None and outcome.table:
                from benchmarks import tables

                tables.rewrite(page, options.json, outcome.table)
    except (AttackError, HEInferError) as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2
    for line in outcome.lines:
        print(line)
    return 0 if outcome.holds else 1


if __name__ == "__main__":
    sys.exit(main())
