"""Accuracy: logit error, agreement with the plaintext network and with the true labels."""

from __future__ import annotations

import argparse

from benchmarks.inference import cases
from benchmarks.inference.measure import measure, measure_served
from benchmarks.inference.options import add_case_arguments, engine_of, outcome_of, plan_of
from benchmarks.record import Outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_case_arguments(parser)
    parser.add_argument("--threads", type=int, default=1, help="of each evaluation")
    parser.add_argument("--batch", type=int, default=1, help="images per query")
    parser.add_argument("--records", type=int, default=1000, help="test inputs")
    parser.add_argument("--http", action="store_true", help="ask a real server through the client")


def run(options: argparse.Namespace) -> Outcome:
    """One record over the first ``--records`` test inputs, ``--batch`` to a query.

    With ``--http`` a real server is asked through the client; its backend is the best there is.
    """
    case, records = cases.load(options.case), options.records
    plan = plan_of(case, options, batch=options.batch)
    if options.http:
        return outcome_of([measure_served(plan, case, records=records)])
    filled = min(options.batch, records)
    found = measure(
        engine_of(plan, options),
        case,
        queries=records // filled,
        threads=options.threads,
        records_per_query=filled,
    )
    return outcome_of([found])
