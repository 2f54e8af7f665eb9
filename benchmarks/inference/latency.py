"""Latency: one image per query, beside other engines in the same process if asked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from benchmarks.inference import cases
from benchmarks.inference.cases import Case
from benchmarks.inference.compiled import EncryptedEngine
from benchmarks.inference.engine import Engine
from benchmarks.inference.measure import measure
from benchmarks.inference.options import (
    add_case_arguments,
    engine_of,
    numbers_of,
    outcome_of,
    plan_of,
)
from benchmarks.inference.peers.square_network import read_square_network
from benchmarks.inference.peers.tenseal_tutorial import TUTORIAL, TenSEALEngine, tuned_settings
from benchmarks.record import Outcome
from he_infer.errors import HEInferError, InputError
from he_infer.plan.plan import Plan

PEER_REPEATS: Final = 3  # a peer's evaluation takes up to half a minute
PEERS: Final = ("tenseal", "seal", "helayers")


def parse_peers(text: str) -> tuple[str, ...]:
    """A comma-separated list of peers; raises InputError for an unknown one."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise InputError(f"no peer is called {', '.join(unknown)}: choose from {', '.join(PEERS)}")
    return names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_case_arguments(parser)
    parser.add_argument(
        "--threads", type=numbers_of, default=(1,), help="of each evaluation, a list"
    )
    parser.add_argument("--repeats", type=int, default=20, help="queries that are timed")
    parser.add_argument(
        "--against",
        type=parse_peers,
        default=(),
        help=f"comma-separated, of {', '.join(PEERS)}",
    )


def run(options: argparse.Namespace) -> Outcome:
    """This package's record for each number of threads, then each peer's on one.

    A peer that is not installed, or cannot run the case, is reported on stderr and left out.
    """
    case, repeats = cases.load(options.case), options.repeats
    plan = plan_of(case, options)
    records = [
        measure(engine_of(plan, options, threads=count), case, queries=repeats, threads=count)
        for count in options.threads
    ]
    for name in options.against:
        try:
            queries = repeats if name == "seal" else min(repeats, PEER_REPEATS)
            for make in _peers(name, plan, case):
                records.append(measure(make(), case, queries=queries, threads=1))
        except (HEInferError, ImportError) as error:
            print(f"skipped: {name}: {error}", file=sys.stderr)
    return outcome_of(records)


def _peers(name: str, plan: Plan, case: Case) -> list[Callable[[], Engine[Any, Any]]]:
    if name == "seal":
        return [partial(EncryptedEngine, plan, backend="seal", threads=1)]
    network = read_square_network(case.model, case.sample)
    if name == "helayers":
        from benchmarks.inference.peers.helayers_peer import HElayersEngine

        return [partial(HElayersEngine, network)]
    return [partial(TenSEALEngine, network, s) for s in (TUTORIAL, tuned_settings(network))]
