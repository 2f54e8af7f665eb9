"""What a plan will cost and how exact it will be, before any key is made or anything deployed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from he_infer import ir
from he_infer.backends.simulated import SimulatedBackend
from he_infer.calibrate import calibrate, share_outside
from he_infer.costs import CostModel
from he_infer.errors import InputError
from he_infer.executor import count_costs, run_on
from he_infer.plan import Plan, encoded_megabytes
from he_infer.progress import Progress
from he_infer.wire.envelope import NO_DIGEST, Expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Sizes and times are of one query of ``batch`` records.

    ``max_error``, ``rms_error``: of the logits, simulated encryption against ``reference``;
    ``label_agreement``: share of records whose largest logit is the same, None for one output.
    ``plan_error``: the part of ``max_error`` that approximation and compilation make alone.
    ``outside``: share of the checked records with a value outside its calibrated interval, by
    layer. ``predicted_ms``: one core, by the cost model. Errors are over ``checked`` records.
    """

    name: str
    plan_digest: str
    n: int
    log_qp: float
    security_bits: int
    depth: int
    batch: int
    rotation_keys: int
    key_bytes: int
    query_bytes: int
    reply_bytes: int
    weights_mb: float
    key_switches: int
    operations: Mapping[str, int]
    predicted_ms: float
    checked: int
    max_error: float
    rms_error: float
    plan_error: float
    label_agreement: float | None
    outside: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def preview(
    plan: Plan,
    *,
    sample: ir.FloatArray,
    check: ir.FloatArray,
    reference: ir.FloatArray,
    cost: CostModel,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> Preview:
    """Run ``check`` through the simulated backend and count one query on the cost backend.

    ``sample``: what the plan was compiled with, ``check``: records it has not seen, both
    (records, *input_shape). ``reference``: the original model's outputs for ``check``,
    (records, outputs). Raises InputError if the two do not fit.
    """
    expected = (len(check), plan.client_spec.n_outputs)
    if len(check) == 0 or reference.shape != expected:
        raise InputError(f"reference outputs have shape {reference.shape}, expected {expected}")
    flat = check.reshape(len(check), -1)
    exact = ir.evaluate(plan.graph, flat)[plan.graph.output.name]
    got = simulate(plan, check, rng=rng, progress=progress)
    error = got - reference
    intervals = calibrate(plan.graph, sample.reshape(len(sample), -1))
    counted = count_costs(plan, cost)
    key_bytes, query_bytes, reply_bytes = sizes(plan)
    return Preview(
        name=plan.name,
        plan_digest=plan.digest,
        n=plan.params.n,
        log_qp=round(plan.params.log_qp, 2),
        security_bits=plan.params.security_bits,
        depth=plan.params.max_level,
        batch=plan.batch,
        rotation_keys=len(plan.rotation_steps),
        key_bytes=key_bytes,
        query_bytes=query_bytes,
        reply_bytes=reply_bytes,
        weights_mb=encoded_megabytes(plan),
        key_switches=counted.key_switches,
        operations=dict(sorted(counted.counts.items())),
        predicted_ms=round(counted.milliseconds, 2),
        checked=len(check),
        max_error=float(np.abs(error).max()),
        rms_error=float(np.sqrt(np.mean(error**2))),
        plan_error=float(np.abs(exact - reference).max()),
        label_agreement=agreement(got, reference),
        outside=share_outside(plan.graph, intervals, flat),
    )


def simulate(
    plan: Plan,
    records: ir.FloatArray,
    *,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> ir.FloatArray:
    """Outputs (records, outputs) with CKKS noise, query by query of ``plan.batch`` records."""
    spec = plan.client_spec
    backend = SimulatedBackend(plan.params, rng, steps=plan.rotation_steps)
    parts = []
    for start in range(0, len(records), plan.batch):
        part = records[start : start + plan.batch]
        slots = spec.pack(part)
        query = [backend.encrypt(row, scale=spec.input_scale) for row in slots]
        reply = run_on(backend, plan, query)
        values = np.stack([backend.decrypt(c).real for c in reply])
        parts.append(spec.unpack(values, len(part)))
        if progress is not None:
            progress("simulate", start + len(part), len(records))
    return np.concatenate(parts)


def sizes(plan: Plan) -> tuple[int, int, int]:
    """Exact bytes of the evaluation keys, one query and one reply on the wire."""
    spec = plan.client_spec
    keys = Expected.evaluation_keys(plan.params, steps=plan.rotation_steps)
    query = Expected.query(
        plan.params,
        plan_digest=NO_DIGEST,
        keys_digest=NO_DIGEST,
        count=spec.n_input_ciphertexts,
        scale=spec.input_scale,
    )
    reply = Expected.reply(
        plan.params,
        plan_digest=NO_DIGEST,
        keys_digest=NO_DIGEST,
        count=spec.n_output_ciphertexts,
        level=spec.output_level,
        scale=spec.output_scale,
    )
    return keys.total_bytes, query.total_bytes, reply.total_bytes


def agreement(outputs: ir.FloatArray, reference: ir.FloatArray) -> float | None:
    """Share of rows with the same largest column; None if there is only one column."""
    if reference.shape[1] < 2:
        return None
    return float(np.mean(outputs.argmax(axis=1) == reference.argmax(axis=1)))
