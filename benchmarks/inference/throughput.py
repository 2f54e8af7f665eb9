"""Throughput: as many images in one query as the ring has slots."""

from __future__ import annotations

import argparse

from benchmarks.inference import cases
from benchmarks.inference.measure import measure
from benchmarks.inference.options import add_case_arguments, engine_of, outcome_of, plan_of
from benchmarks.record import Outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_case_arguments(parser)
    parser.add_argument("--threads", type=int, default=1, help="of each evaluation")
    parser.add_argument("--repeats", type=int, default=1, help="queries that are timed")
    parser.add_argument("--batch", type=int, default=2048, help="images per query")


def run(options: argparse.Namespace) -> Outcome:
    """One record for queries of ``--batch`` images, or of as many as the case has."""
    case, batch, threads = cases.load(options.case), options.batch, options.threads
    engine = engine_of(plan_of(case, options, batch=batch), options, threads=threads)
    filled = min(batch, len(case.inputs) // options.repeats)
    found = measure(
        engine, case, queries=options.repeats, threads=threads, records_per_query=filled
    )
    return outcome_of([found])
