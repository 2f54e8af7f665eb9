"""The whole pipeline as one readable function: model + sample → Plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike

from he_infer.compiler import passes
from he_infer.compiler.intervals import Interval, calibrate, layer_interval
from he_infer.compiler.levels import (
    ModulusChain,
    chain_of,
    choose_chains,
    least_scale_bits,
    output_scale_of,
)
from he_infer.compiler.planner import plan_packing
from he_infer.errors import CompileError, DefenceError, DepthError, InputError, ParameterError
from he_infer.frontend.elementwise import gather_polynomials
from he_infer.params import MAX_LOG_QP, CKKSParams
from he_infer.plan import ir
from he_infer.plan.placement import place
from he_infer.plan.plan import Plan
from he_infer.plan.privacy import FunctionPrivacy, flooding_bits
from he_infer.runtime.costs import CostModel
from he_infer.wire.protocol import NAME

if TYPE_CHECKING:
    from he_infer.activations.approx import Polynomial

DEFAULT_PRECISION_BITS: Final = 10
# By how much flooding exceeds a factor: a reply's coefficients are multiples of it, and what is
# added has to hide their remainders, which are uniform up to 2^−HIDING_BITS then.
HIDING_BITS: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Approximation:
    """How activations that are not polynomials are replaced.

    ``method(function, interval=(low, high), degree=degree)`` is one of
    ``he_infer.activations.approx``'s.
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
    ``privacy``: what is done to replies, by default everything that leaves the outputs as they
    are; see ``he_infer.plan.privacy``.
    Raises CompileError and its subclasses, ParameterError, DepthError, InputError; DefenceError
    where the parameters cannot carry what ``privacy`` asks for.
    """
    records = check_sample(sample)
    if batch < 1 or batch & (batch - 1):
        raise ParameterError(f"batch must be a power of two, got {batch}")
    if 2 * batch > max(MAX_LOG_QP):
        raise ParameterError(
            f"batch {batch} exceeds the {max(MAX_LOG_QP) // 2} slots of the largest ring: send "
            "several queries"
        )
    if not NAME.fullmatch(name):
        raise CompileError(
            f"the name {name!r} cannot stand in an address: use up to 100 letters, digits, "
            "dots, dashes and underscores"
        )
    graph = to_polynomials(trace_any(model, records), flatten(records), approximation)
    graph = to_normal_form(graph, flatten(records))
    outputs = ir.evaluate(graph, flatten(records))[graph.output.name]
    output_range = max(1.0, float(np.abs(outputs).max()))
    defences = privacy or FunctionPrivacy.for_precision(precision_bits)
    replies = ReplyScales(
        output_range=output_range, batch=batch, precision_bits=precision_bits, privacy=defences
    )
    chains = replies.chains(graph) if params is None else [chain_of(graph, params)]
    model_costs = cost or CostModel()
    found: list[Plan] = []
    for chain in chains:
        if batch > chain.params.slots:
            raise ParameterError(
                f"batch {batch} exceeds the {chain.params.slots} slots of N = {chain.params.n}"
            )
        scale = 2.0**chain.scale_bits
        output_scale = replies.output_scale(chain.params, scale)
        placed = place(graph, chain.params, lazy=chain.lazy, scale=scale, output_scale=output_scale)
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
                lazy=chain.lazy,
                batch=batch,
                packing=packing,
                input_range=(float(records.min()), float(records.max())),
                output_range=output_range,
                privacy=defences,
            )
        )
    return cheapest(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyScales:
    """Chooses chains and output scales with room for the outputs and for what blurs them."""

    output_range: float
    batch: int
    precision_bits: int
    privacy: FunctionPrivacy

    @property
    def reach(self) -> float:
        """The largest value of a reply, in units of 1 / the last layer's scale."""
        factor = 2.0 ** self.privacy.factor_bits(self.batch)
        return self.privacy.reply_range(self.output_range) * factor

    def chains(self, graph: ir.Graph) -> list[ModulusChain]:
        """The candidates for a graph.

        Raises DepthError if none fits, DefenceError if none fits only because of perturbation.
        """

        def choose(reach: float) -> list[ModulusChain]:
            return choose_chains(
                graph,
                precision_bits=self.precision_bits,
                output_bits=math.ceil(math.log2(reach)),
                least_n=max(4096, 2 * self.batch),
            )

        try:
            return choose(self.reach)
        except DepthError as error:
            if not self.privacy.perturbs:
                raise
            choose(self.output_range)  # says so where the graph itself is too deep
            raise self._refusal("than any ring has to spare") from error

    def output_scale(self, params: CKKSParams, scale: float) -> float:
        """The outputs' scale; raises DefenceError where perturbation leaves too little of it."""
        bare = output_scale_of(params, self.output_range, scale)
        if not self.privacy.perturbs:
            return bare
        least = min(bare, 2.0 ** least_scale_bits(params.n, self.precision_bits))
        try:
            found = output_scale_of(params, self.reach, scale)
        except ParameterError as error:
            raise self._refusal(f"than {params.primes[0].bit_length()} bits hold") from error
        if found < least:
            raise self._refusal(f"than {params.primes[0].bit_length()} bits hold")
        factor_bits = self.privacy.factor_bits(self.batch)
        flooding = flooding_bits(params.n, self.privacy.flooding_std, 2 * found * 2.0**factor_bits)
        if factor_bits and flooding < factor_bits + HIDING_BITS:
            raise DefenceError(
                f"flooding of {flooding} bits does not cover factors of {factor_bits} bits, which "
                f"would show in a reply's lowest bits: raise flooding_std by a factor of "
                f"{2.0 ** (factor_bits + HIDING_BITS - flooding):g} or lower precision_bits"
            )
        return found

    def _refusal(self, where: str) -> DefenceError:
        room = self.privacy.room_bits(self.output_range, self.batch)
        return DefenceError(
            f"{self.privacy.perturbation}: these take {room:.1f} bits more of the first prime "
            f"{where}, beside outputs up to {self.output_range:.3g} with "
            f"{self.precision_bits} bits of precision: lower precision_bits, scaling, shift or "
            "noise_std"
        )


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
    from he_infer.frontend.scikit import read_estimator

    graph = read_estimator(model, records)
    if graph is not None:
        return graph
    from torch import nn

    from he_infer.frontend.pytorch import trace

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
        from he_infer.activations import approx

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
