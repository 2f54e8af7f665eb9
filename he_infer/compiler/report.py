"""What a plan will cost and how well it will answer, before anything is deployed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from he_infer.compiler.pipeline import check_sample, flatten, trace_any
from he_infer.errors import InputError
from he_infer.plan import ir
from he_infer.plan.client_spec import expected_query, expected_reply
from he_infer.plan.plan import Plan, encoded_bytes
from he_infer.plan.privacy import FunctionPrivacy, flooding_bits, flooding_std
from he_infer.runtime.backends.simulated import SimulatedBackend
from he_infer.runtime.costs import CostModel
from he_infer.runtime.executor import count_costs, run_on
from he_infer.wire import NO_DIGEST, Expected


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileReport:
    """Figures about a plan; sizes in bytes, times in milliseconds, errors in output units.

    ``simulated_records`` records were run through the simulated backend for the predicted
    errors and label agreement. ``outside_ranges``: share of the sample with a value outside
    the calibrated interval, per nonlinear layer. ``approximation_agreement``: label agreement
    of the polynomial network with the original one, both in the clear; None if not asked for.
    ``privacy_ms``: predicted time of the conjugate, flooding and the fresh encryption of zero.
    ``defences``: what blurs outputs, in words, or empty, with its price in predicted
    milliseconds and in bits of the first prime; it takes no level. Predicted errors count its
    noise, but no scaling or shift, which are no errors; the label agreement counts all of it.
    """

    name: str
    n: int
    log_qp: float
    security_bits: int
    depth: int
    scale_bits: float
    batch: int
    input_ciphertexts: int
    galois_keys: int
    key_bytes: int
    query_bytes: int
    reply_bytes: int
    encoded_weights_bytes: int
    output_range: float
    predicted_error_std: float
    predicted_error_max: float
    predicted_label_agreement: float
    simulated_records: int
    privacy_ms: float
    flooding_error_std: float
    records_charged: int
    key_switches: int
    operations: Mapping[str, int]
    predicted_ms: float
    outside_ranges: Mapping[str, float]
    approximation_agreement: float | None
    defences: str
    defences_ms: float
    defences_bits: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """The report as aligned lines."""
        outside = ", ".join(f"{n} {100 * s:.2g} %" for n, s in self.outside_ranges.items())
        rows = [
            ("ring degree N", f"{self.n}"),
            ("log2(QP)", f"{self.log_qp:.1f} bits"),
            ("security", f"{self.security_bits} bits (ePrint 2024/463)"),
            ("depth", f"{self.depth} levels at scale 2^{self.scale_bits:g}"),
            ("records per query", f"{self.batch}"),
            ("evaluation keys", f"{_size(self.key_bytes)}, {self.galois_keys} rotations"),
            ("query", f"{_size(self.query_bytes)}, {self.input_ciphertexts} ciphertext(s)"),
            ("reply", _size(self.reply_bytes)),
            ("encoded weights", _size(self.encoded_weights_bytes)),
            ("outputs", f"up to {self.output_range:.3g} on the sample"),
            (
                "predicted error",
                f"{self.predicted_error_std:.2g} std, {self.predicted_error_max:.2g} max "
                f"over {self.simulated_records} simulated records",
            ),
            ("predicted label agreement", f"{100 * self.predicted_label_agreement:.2f} %"),
            (
                "function privacy",
                f"{self.privacy_ms:.2g} ms and {self.flooding_error_std:.2g} std of that error; a "
                f"query counts as {self.records_charged} record(s)",
            ),
            ("key switches", f"{self.key_switches}"),
            ("predicted evaluation", f"{self.predicted_ms:.0f} ms a query on one core"),
            ("sample outside ranges", outside or "no nonlinear layers"),
        ]
        if self.approximation_agreement is not None:
            share = f"{100 * self.approximation_agreement:.2f} % with the original network"
            rows.insert(12, ("polynomial label agreement", share))
        if self.defences:
            price = f"no level, {self.defences_ms:.2g} ms, {self.defences_bits:.1f} bits"
            rows.append(("defences of the model", f"{self.defences}: {price} of the first prime"))
        width = max(len(label) for label, _ in rows)
        return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)


def compile_report(
    plan: Plan,
    sample: ArrayLike,
    *,
    rng: np.random.Generator,
    records: int = 16,
    cost: CostModel | None = None,
    model: Any | None = None,
) -> CompileReport:
    """Measure a plan on ``sample`` (records, *record shape), of which ``records`` simulated.

    With ``model``, the network the plan was compiled from, it also says how many labels the
    replacement of its activations changed. Take records that did not calibrate the plan.
    Raises InputError for an unusable sample.
    """
    given = check_sample(sample)
    if given.shape[1:] != plan.graph.input.shape:
        expected = plan.graph.input.shape
        raise InputError(f"expected records of shape {expected}, got {given.shape[1:]}")
    flat = flatten(given)
    values = ir.evaluate(plan.graph, flat)
    exact = values[plan.graph.output.name]
    simulated = simulate(plan, given[:records], rng=rng)
    steady = replace(plan, privacy=plan.privacy.unscaled())
    known = (
        simulated if steady.privacy == plan.privacy else simulate(steady, given[:records], rng=rng)
    )
    errors = known - exact[: len(known)]
    agreement = simulated.argmax(axis=1) == exact[: len(simulated)].argmax(axis=1)
    model_costs = cost or CostModel()
    costs = count_costs(plan, model_costs)
    spec = plan.client_spec

    def added_ms(less: FunctionPrivacy) -> float:
        """Predicted milliseconds that the plan takes beyond one that does ``less`` to replies."""
        bare = count_costs(replace(plan, privacy=less), model_costs)
        return costs.milliseconds - bare.milliseconds

    return CompileReport(
        name=plan.name,
        n=plan.params.n,
        log_qp=plan.params.log_qp,
        security_bits=plan.params.security_bits,
        depth=plan.params.max_level,
        scale_bits=math.log2(plan.scale),
        batch=plan.batch,
        input_ciphertexts=spec.n_input_ciphertexts,
        galois_keys=len(plan.rotation_steps),
        key_bytes=Expected.evaluation_keys(plan.params, spec.key_levels).total_bytes,
        query_bytes=expected_query(spec, NO_DIGEST).total_bytes,
        reply_bytes=expected_reply(spec, NO_DIGEST).total_bytes,
        encoded_weights_bytes=encoded_bytes(plan),
        output_range=plan.output_range,
        predicted_error_std=float(errors.std()),
        predicted_error_max=float(np.abs(errors).max()),
        predicted_label_agreement=float(agreement.mean()),
        simulated_records=len(simulated),
        privacy_ms=added_ms(FunctionPrivacy.unchecked()),
        flooding_error_std=_flooding_std(plan),
        records_charged=plan.records_charged,
        key_switches=costs.key_switches,
        operations=dict(costs.counts),
        predicted_ms=costs.milliseconds,
        outside_ranges=outside_ranges(plan.graph, values),
        approximation_agreement=None if model is None else _agreement(model, given, exact),
        defences=plan.privacy.perturbation,
        defences_ms=added_ms(plan.privacy.unperturbed()),
        defences_bits=plan.privacy.room_bits(plan.output_range, plan.batch),
    )


def _flooding_std(plan: Plan) -> float:
    if not plan.privacy.flooding_std:
        return 0.0
    bits = flooding_bits(plan.params.n, plan.privacy.flooding_std, plan.reply_scale)
    return flooding_std(plan.params.n, bits, plan.reply_scale)


def simulate(plan: Plan, records: ArrayLike, *, rng: np.random.Generator) -> ir.FloatArray:
    """Answers (records, outputs) with CKKS noise, one virtual key per query."""
    given = np.asarray(records, dtype=np.float64)
    answers = []
    for start in range(0, len(given), plan.batch):
        part = given[start : start + plan.batch]
        slots = simulate_query(plan, part, rng=rng)
        answers.append(plan.client_spec.unpack(slots, len(part)))
    return np.concatenate(answers)


def simulate_query(plan: Plan, records: ArrayLike, *, rng: np.random.Generator) -> ir.FloatArray:
    """All slots that one query of at most ``plan.batch`` records decrypts to, (ciphertexts, N/2).

    The virtual key and all noise are drawn anew. Raises InputError as ``ClientSpec.check``.
    """
    spec = plan.client_spec
    backend = SimulatedBackend(plan.params, rng, steps=plan.rotation_steps)
    inputs = [backend.encrypt(row, scale=spec.input_scale) for row in spec.pack(records)]
    return np.stack([backend.decrypt(c).real for c in run_on(backend, plan, inputs)])


def outside_ranges(graph: ir.Graph, values: Mapping[str, ir.FloatArray]) -> dict[str, float]:
    """Share of records that leave [−1, 1], where normal form puts every calibrated interval."""
    shares = {}
    for node in graph:
        if isinstance(node, ir.Square | ir.Polynomial):
            beyond = np.abs(values[node.source]) > 1
            shares[node.name.removesuffix(".square")] = float(beyond.any(axis=1).mean())
    return shares


def _agreement(model: Any, records: ir.FloatArray, polynomial: ir.FloatArray) -> float:
    """Share of records on which the original network's largest output is the polynomial's."""
    graph = trace_any(model, records)
    original = ir.evaluate(graph, flatten(records))[graph.output.name]
    return float((original.argmax(axis=1) == polynomial.argmax(axis=1)).mean())


def _size(count: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"
