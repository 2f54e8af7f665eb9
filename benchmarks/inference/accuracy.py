"""Accuracy: logit error, agreement with the plaintext network and with the true labels."""

from __future__ import annotations

import numpy as np

from benchmarks.inference.cases import Case
from benchmarks.inference.compiled import compiled_engine
from benchmarks.inference.measure import measure
from benchmarks.inference.served import measure_served
from benchmarks.record import Record
from he_infer.compiler.pipeline import compile as compile_model


def run(
    case: Case,
    *,
    backend: str,
    precision_bits: int,
    threads: int,
    batch: int,
    records: int,
    through_http: bool,
    rng: np.random.Generator,
) -> list[Record]:
    """One record over the first ``records`` test inputs, ``batch`` to a query.

    ``through_http``: ask a real server through the client; its backend is the best there is.
    """
    plan = compile_model(
        case.model, case.sample, name=case.name, batch=batch, precision_bits=precision_bits
    )
    if through_http:
        return [measure_served(plan, case, records=records)]
    engine = compiled_engine(plan, backend, rng)
    filled = min(batch, records)
    return [
        measure(engine, case, queries=records // filled, threads=threads, records_per_query=filled)
    ]
