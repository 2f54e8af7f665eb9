"""Throughput: as many images in one query as the ring has slots."""

from __future__ import annotations

import numpy as np

from benchmarks.inference.cases import Case
from benchmarks.inference.compiled import compiled_engine
from benchmarks.inference.measure import measure
from benchmarks.record import Record
from he_infer.compiler.pipeline import compile as compile_model


def run(
    case: Case,
    *,
    backend: str,
    precision_bits: int,
    threads: int,
    batch: int,
    repeats: int,
    rng: np.random.Generator,
) -> list[Record]:
    """One record for queries of ``batch`` images (fewer if the case holds fewer)."""
    plan = compile_model(
        case.model, case.sample, name=case.name, batch=batch, precision_bits=precision_bits
    )
    engine = compiled_engine(plan, backend, rng, threads=threads)
    filled = min(batch, len(case.inputs) // repeats)
    return [measure(engine, case, queries=repeats, threads=threads, records_per_query=filled)]
