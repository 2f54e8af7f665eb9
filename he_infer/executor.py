"""Runs a plan on a backend: encodes the weights once, then evaluates queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic

from he_infer.backends.base import Backend, C, P
from he_infer.backends.cost import CostBackend, CostCiphertext
from he_infer.costs import CostModel
from he_infer.errors import MismatchError
from he_infer.ir import FloatArray
from he_infer.kernels import Machine, run_step
from he_infer.plan import Plan
from he_infer.progress import Progress


@dataclass
class EncodedWeights(Generic[P]):
    """Plaintexts by key; safe to share between threads once ``prepare`` has filled it."""

    encode: Callable[..., P]
    stored: dict[tuple[object, ...], P] = field(default_factory=dict)

    def __call__(
        self, key: tuple[object, ...], build: Callable[[], FloatArray | float], *,
        level: int, scale: float,
    ) -> P:  # fmt: skip
        found = self.stored.get(key)
        if found is None:
            values = build()
            found = self.encode(values, level=level, scale=scale)
            if not isinstance(values, float):
                # A scalar encodes faster than it is worth remembering.
                self.stored[key] = found
        return found


class PlanRunner(Generic[C, P]):
    """Evaluates a plan's steps over any backend."""

    def __init__(self, plan: Plan, weights: EncodedWeights[P]) -> None:
        self.plan = plan
        self.weights = weights

    def run(
        self, inputs: Sequence[C], backend: Backend[C, P], *, progress: Progress | None = None
    ) -> list[C]:
        """Query ciphertexts → reply ciphertexts, re-randomised.

        Raises MismatchError for another number of ciphertexts than the plan expects.
        """
        plan = self.plan
        expected = plan.packing.input.layout.ciphertexts
        if len(inputs) != expected:
            raise MismatchError(f"expected {expected} ciphertexts, got {len(inputs)}")
        machine = Machine(backend=backend, plaintexts=self.weights, batch=plan.batch)
        values: dict[str, Sequence[C]] = {plan.graph.input.name: inputs}
        last_use = {s: i for i, step in enumerate(plan.steps) for s in _sources(step)}
        for i, step in enumerate(plan.steps):
            names = _sources(step)
            values[step.name] = run_step(machine, step, [values[n] for n in names])
            for name in names:
                if last_use[name] == i:
                    del values[name]  # large batches would not fit otherwise
            if progress is not None:
                progress("evaluate", i + 1, len(plan.steps))
        return [backend.rerandomize(c) for c in values[plan.graph.output.name]]


def _sources(step: object) -> tuple[str, ...]:
    sources = getattr(step, "sources", None)
    return sources if sources is not None else (step.source,)  # type: ignore[attr-defined, no-any-return]


def run_on(backend: Backend[C, P], plan: Plan, inputs: Sequence[C]) -> list[C]:
    """Evaluate once, encoding as needed."""
    runner: PlanRunner[C, P] = PlanRunner(plan, EncodedWeights(encode=backend.encode))
    return runner.run(inputs, backend)


def count_costs(plan: Plan, model: CostModel) -> CostBackend:
    """Run the plan on the cost backend and return it with its counts."""
    backend = CostBackend(plan.params, model, steps=plan.rotation_steps)
    fresh = CostCiphertext(level=plan.params.max_level, scale=plan.scale)
    run_on(backend, plan, [fresh] * plan.packing.input.layout.ciphertexts)
    return backend


def prepare(
    plan: Plan, weights: EncodedWeights[P], *, progress: Progress | None = None
) -> None:
    """Encode every weight that will be remembered, before the first query comes."""

    class EncodeOnly(CostBackend):
        """Counts nothing of interest; walks the plan so that every key is asked for."""

    backend = EncodeOnly(plan.params, CostModel())
    fresh = CostCiphertext(level=plan.params.max_level, scale=plan.scale)
    runner: PlanRunner[CostCiphertext, P] = PlanRunner(plan, weights)
    walker: Backend[CostCiphertext, P] = backend  # type: ignore[assignment]
    runner.run([fresh] * plan.packing.input.layout.ciphertexts, walker, progress=progress)
