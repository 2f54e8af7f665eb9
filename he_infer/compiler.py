"""The whole pipeline as one readable function: model + sample → Plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike

from he_infer import ir, passes
from he_infer.calibrate import Interval, calibrate, layer_interval
from he_infer.client_spec import MODEL_NAME
from he_infer.costs import CostModel
from he_infer.elementwise import gather_polynomials
from he_infer.errors import CompileError, InputError, ParameterError
from he_infer.levels import Chain, choose_chains, output_scale_of, place, scale_bits_of
from he_infer.params import MAX_LOG_QP, CKKSParams
from he_infer.plan import Plan
from he_infer.planner import plan_packing
from he_infer.privacy import FunctionPrivacy

if TYPE_CHECKING:
    from he_infer.approx import Polynomial

DEFAULT_PRECISION_BITS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Approximation:
    """How activations that are not polynomials are replaced.

    ``method(function, interval=(low, high), degree=degree)`` is one of ``he_infer.approx``'s.
    """

    method: Callable[..., Polynomial]
    degree: int


def compile(
    model: Any,
    sample: ArrayLike,
    *,
    name: str = "model",
    batch: int = 1,
    precision_bits: int = DEFAULT_PRECISION_BITS,
    approximation: Approximation | None = None,
    params: CKKSParams | None = None,
    cost: CostModel | None = None,
    privacy: FunctionPrivacy | None = None,
) -> Plan:
    """Compile a model into a plan that evaluates it on encrypted records.

    ``model``: an ``nn.Module`` or a scikit-learn linear model or MLP. ``sample``:
    (records, *record shape) typical inputs; they calibrate every interval, so a few hundred.
    ``batch``: records per query, a power of two (1: least latency; N/2: most throughput; a
    larger value than the ring offers raises). ``precision_bits``: the standard deviation of the
    outputs' error stays below 2^−precision_bits. ``approximation``: for activations that are
    not polynomials; without one, least squares of degree 3 on the calibrated interval.
    ``privacy``: what is done to replies, by default everything; see ``he_infer.privacy``.
    Raises CompileError and its subclasses, ParameterError, DepthError, InputError.
    """
    records = check_sample(sample)
    if batch < 1 or batch & (batch - 1):
        raise ParameterError(f"batch must be a power of two, got {batch}")
    if 2 * batch > max(MAX_LOG_QP):
        raise ParameterError(
            f"batch {batch} exceeds the {max(MAX_LOG_QP) // 2} slots of the largest ring: send "
            "several queries"
        )
    if not MODEL_NAME.fullmatch(name):
        raise CompileError(
            f"the name {name!r} cannot stand in an address: use up to 100 letters, digits, "
            "dots, dashes and underscores"
        )
    graph = to_polynomials(trace_any(model, records), flatten(records), approximation)
    graph = to_normal_form(graph, flatten(records))
    outputs = ir.evaluate(graph, flatten(records))[graph.output.name]
    output_range = max(1.0, float(np.abs(outputs).max()))
    if params is None:
        chains = choose_chains(
            graph,
            precision_bits=precision_bits,
            output_bits=math.ceil(math.log2(output_range)),
            least_n=max(4096, 2 * batch),
        )
    else:
        bits = scale_bits_of(graph, params)
        chains = [Chain(params=params, scale_bits=bits)]
    model_costs = cost or CostModel()
    defences = privacy or FunctionPrivacy.for_precision(precision_bits)
    found: list[Plan] = []
    for chain in chains:
        if batch > chain.params.slots:
            raise ParameterError(
                f"batch {batch} exceeds the {chain.params.slots} slots of N = {chain.params.n}"
            )
        scale = 2.0**chain.scale_bits
        output_scale = output_scale_of(chain.params, output_range, scale)
        placed = place(graph, chain.params, scale=scale, output_scale=output_scale)
        packing = plan_packing(
            graph,
            placed,
            chain.params,
            batch=batch,
            cost=model_costs,
            spills=defences.spills,
        )
        found.append(
            Plan(
                name=name,
                graph=graph,
                params=chain.params,
                scale=scale,
                output_scale=output_scale,
                batch=batch,
                packing=packing,
                input_range=(float(records.min()), float(records.max())),
                output_range=output_range,
                privacy=defences,
            )
        )
    return cheapest(found)


def cheapest(plans: Sequence[Plan]) -> Plan:
    """The plan of the least predicted time, with the others named among what was considered."""
    best = min(plans, key=lambda plan: plan.packing.predicted_ms)
    others = tuple(
        f"{plan.packing.predicted_ms:.0f} ms: the best with primes of "
        f"{[q.bit_length() for q in plan.params.primes]} bits at N = {plan.params.n}"
        for plan in plans
        if plan is not best
    )
    considered = (*best.packing.considered, *others)
    return replace(best, packing=replace(best.packing, considered=considered))


def trace_any(model: Any, records: ir.FloatArray) -> ir.Graph:
    """Trace a torch module or read a scikit-learn estimator; imports torch only for the former."""
    from he_infer.trace_sklearn import read_estimator

    graph = read_estimator(model, records)
    if graph is not None:
        return graph
    from torch import nn

    from he_infer.trace import trace

    if not isinstance(model, nn.Module):
        raise CompileError(
            f"cannot compile a {type(model).__name__}: give an nn.Module, or a scikit-learn "
            "linear model or MLP"
        )
    return trace(model, records)


def to_polynomials(
    graph: ir.Graph, flat: ir.FloatArray, approximation: Approximation | None
) -> ir.Graph:
    """Replace activations by polynomials, one after the other: each calibrates on the result.

    An approximation changes what the next layer sees, so intervals are measured behind it.
    """
    if approximation is None:
        from he_infer import approx

        approximation = Approximation(method=approx.least_squares, degree=3)
    chosen = approximation

    def fit(node: ir.Activation, interval: Interval) -> tuple[ir.FloatArray, float, float]:
        center, radius = layer_interval(interval)
        polynomial = chosen.method(
            node.function, interval=(center - radius, center + radius), degree=chosen.degree
        )
        return np.asarray(polynomial.coefficients, dtype=np.float64), center, radius

    while True:
        pending = [node for node in graph if isinstance(node, ir.Activation)]
        if not pending:
            return graph
        first = pending[0].name
        intervals = calibrate(graph, flat)
        graph = passes.fit_activations(graph, {first: intervals[first]}, fit)


def to_normal_form(graph: ir.Graph, flat: ir.FloatArray) -> ir.Graph:
    """Affine and nonlinear nodes in turn, quadratics as squares, everything on [−1, 1]."""
    graph = passes.isolate_polynomials(gather_polynomials(graph))
    graph = passes.normalise(graph, calibrate(graph, flat))
    graph = passes.complete_squares(graph)
    graph = passes.end_with_affine(graph)
    return passes.merge_affine(graph)


def check_sample(sample: ArrayLike) -> ir.FloatArray:
    """(records, *shape) float64; raises InputError for anything else."""
    records = np.asarray(sample, dtype=np.float64)
    if records.ndim < 2 or len(records) == 0:
        raise InputError(
            f"the sample must be (records, *record shape) with records, got {records.shape}"
        )
    if not np.isfinite(records).all():
        raise InputError("the sample holds NaN or infinite values")
    return records


def flatten(records: ir.FloatArray) -> ir.FloatArray:
    return records.reshape(len(records), -1)
