"""Latency: one image per query, against TenSEAL in the same process if asked."""

from __future__ import annotations

from typing import Final

import numpy as np

from benchmarks.cases import Case
from benchmarks.compiled import compiled_engine
from benchmarks.measure import measure
from benchmarks.peers.square_network import read_square_network
from benchmarks.peers.tenseal_tutorial import TUTORIAL, TenSEALEngine, tuned_settings
from benchmarks.record import Record, with_ratios
from he_infer.compiler import compile as compile_model

PEER_REPEATS: Final = 3  # a peer's evaluation takes up to half a minute


def run(
    case: Case,
    *,
    backend: str,
    precision_bits: int,
    threads: int,
    repeats: int,
    against_tenseal: bool,
    rng: np.random.Generator,
) -> list[Record]:
    """This package's record first, then TenSEAL's as in its tutorial and as tuned."""
    plan = compile_model(case.model, case.sample, name=case.name, precision_bits=precision_bits)
    engine = compiled_engine(plan, backend, rng, threads=threads)
    records = [measure(engine, case, queries=repeats, threads=threads)]
    if against_tenseal:
        network = read_square_network(case.model, case.sample)
        for settings in (TUTORIAL, tuned_settings(network)):
            peer = TenSEALEngine(network, settings, threads=threads)
            queries = min(repeats, PEER_REPEATS)
            records.append(measure(peer, case, queries=queries, threads=threads))
    return with_ratios(records)
