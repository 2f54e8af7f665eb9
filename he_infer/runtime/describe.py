"""A plan as readable text, stable from run to run, so that a change shows in a diff."""

from __future__ import annotations

import math

from he_infer.plan.layout import Layout
from he_infer.plan.plan import Plan, encoded_bytes
from he_infer.plan.steps import AffineStep, PolynomialStep, SquareStep, Step
from he_infer.runtime.costs import CostModel
from he_infer.runtime.executor import count_costs


def describe(plan: Plan) -> str:
    """A readable dump: parameters, input packing, one block per step, totals."""
    params = plan.params
    bits = [q.bit_length() for q in params.primes]
    spec = plan.client_spec
    lines = [
        f"plan {plan.name}",
        f"  N = {params.n}, log2(QP) = {params.log_qp:.0f} of primes {bits} + "
        f"{params.special_prime.bit_length()}, {params.security_bits}-bit security",
        f"  depth {params.max_level}, scale 2^{math.log2(plan.scale):g}, "
        f"output scale 2^{math.log2(plan.output_scale):g}",
        f"  {plan.batch} record(s) per query, {params.slots // plan.batch} feature slots",
        f"  input {spec.input_shape} in [{plan.input_range[0]:g}, {plan.input_range[1]:g}]: "
        f"{_layout(plan.packing.input.layout)}",
        f"  replies: {plan.privacy}",
        "",
    ]
    for step in plan.steps:
        lines += _step(plan, step)
    costs = count_costs(plan, CostModel())
    counted = ", ".join(f"{count} {name}" for name, count in sorted(costs.counts.items()))
    lines += [
        "",
        f"output {plan.graph.output.shape}, largest {plan.output_range:.3g} on the sample",
        f"total: {counted}",
        f"Galois keys: {len(plan.rotation_steps)} {list(plan.rotation_steps)}",
        f"encoded weights: {encoded_bytes(plan) / 1e6:.1f} MB",
        "why this packing (predicted for the whole plan, upload included):",
        *(f"  {line}" for line in plan.packing.considered),
    ]
    return "\n".join(lines) + "\n"


def _step(plan: Plan, step: Step) -> list[str]:
    node = plan.graph[step.name]
    layout = plan.packing.layouts[step.name]
    placed = plan.placed[step.name]
    head = f"{step.name}: {type(node).__name__.lower()} → {node.shape}, level {placed.level}"
    match step:
        case AffineStep():
            return [head, f"    {_layout(layout)}", *_affine(plan, step)]
        case SquareStep():
            return [head]
        case PolynomialStep():
            degree = len(step.coefficients) - 1
            return [f"{head}, degree {degree}, scale 2^{math.log2(placed.scale):.2f}"]


def _affine(plan: Plan, step: AffineStep) -> list[str]:
    lines = []
    for source, part in zip(step.sources, step.parts, strict=True):
        lanes = plan.packing.choices[step.name, source].lanes
        detail = [
            f"{len(part.terms)} diagonals",
            f"{len(part.babies) - 1} baby steps",
            f"{len(part.giants) - 1} giant steps",
            f"{len(part.folds)} folds",
        ]
        if lanes > 1:
            detail.append(f"{lanes} lanes")
        lines.append(f"    from {source}: {', '.join(detail)}")
    return lines


def _layout(layout: Layout) -> str:
    text = f"layout {layout.name}, period {layout.period}"
    if layout.ciphertexts > 1:
        text += f", {layout.ciphertexts} ciphertexts"
    if layout.spread > 1:
        text += f", each repeated {layout.spread} times"
    return text + ("" if layout.clean else ", other slots hold partial sums")
