"""Latency: one image per query, beside other engines in the same process if asked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np

from benchmarks.inference.cases import Case
from benchmarks.inference.compiled import compiled_engine
from benchmarks.inference.engine import Engine
from benchmarks.inference.measure import measure
from benchmarks.inference.peers.square_network import read_square_network
from benchmarks.inference.peers.tenseal_tutorial import TUTORIAL, TenSEALEngine, tuned_settings
from benchmarks.record import Record, with_ratios
from he_infer.compiler.pipeline import compile as compile_model
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


def run(
    case: Case,
    *,
    backend: str,
    precision_bits: int,
    threads: Sequence[int],
    repeats: int,
    against: Iterable[str],
    rng: np.random.Generator,
) -> list[Record]:
    """This package's record for each number of threads, then each peer's on one.

    A peer that is not installed, or cannot run the case, is reported on stderr and left out.
    """
    plan = compile_model(case.model, case.sample, name=case.name, precision_bits=precision_bits)
    records = []
    for count in threads:
        engine = compiled_engine(plan, backend, rng, threads=count)
        records.append(measure(engine, case, queries=repeats, threads=count))
    for name in against:
        try:
            engines = _peers(name, plan, case, rng)
            queries = repeats if name == "seal" else min(repeats, PEER_REPEATS)
            records += [measure(make(), case, queries=queries, threads=1) for make in engines]
        except (HEInferError, ImportError) as error:
            print(f"skipped: {name}: {error}", file=sys.stderr)
    return with_ratios(records)


def _peers(
    name: str, plan: Plan, case: Case, rng: np.random.Generator
) -> list[Callable[[], Engine[Any, Any]]]:
    if name == "seal":
        return [lambda: compiled_engine(plan, "seal", rng)]
    network = read_square_network(case.model, case.sample)
    if name == "helayers":
        from benchmarks.inference.peers.helayers_peer import HElayersEngine

        return [lambda: HElayersEngine(network)]
    settings = (TUTORIAL, tuned_settings(network))
    return [lambda s=s: TenSEALEngine(network, s, threads=1) for s in settings]  # type: ignore[misc]
