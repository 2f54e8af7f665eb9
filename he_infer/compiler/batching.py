"""Chooses how many records share a query, by predicted time for a given workload."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from he_infer.compiler.pipeline import DEFAULT_PRECISION_BITS, Approximation, compile
from he_infer.errors import InputError, PackingError
from he_infer.plan.plan import Plan
from he_infer.plan.privacy import FunctionPrivacy
from he_infer.runtime.costs import CostModel

# Finer steps change the predicted time by less than the prediction's own error.
BATCH_STEP = 4


def compile_for_records(
    model: Any,
    sample: ArrayLike,
    *,
    records: int,
    name: str = "model",
    precision_bits: int = DEFAULT_PRECISION_BITS,
    approximation: Approximation | None = None,
    cost: CostModel | None = None,
    privacy: FunctionPrivacy | None = None,
) -> Plan:
    """The plan that answers ``records`` records in the least predicted time.

    Compiles the latency layout, the throughput layout and batches between them, and compares
    queries × predicted milliseconds a query, upload included. Other arguments and errors as
    for ``compile``; InputError for fewer than one record.
    """
    if records < 1:
        raise InputError(f"records must be at least 1, got {records}")
    found: list[tuple[float, Plan]] = []
    batch = 1
    while True:
        try:
            plan = compile(
                model,
                sample,
                name=name,
                batch=batch,
                precision_bits=precision_bits,
                approximation=approximation,
                cost=cost,
                privacy=privacy,
            )
        except PackingError:
            if not found:
                raise
            break
        queries = -(-records // batch)
        found.append((queries * plan.packing.predicted_ms, plan))
        if batch >= min(records, plan.params.slots):
            break
        batch = min(batch * BATCH_STEP, plan.params.slots)
    return min(found, key=lambda pair: pair[0])[1]
