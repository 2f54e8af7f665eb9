"""Runs a plan on a backend: encodes the weights once, then evaluates queries."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic
from weakref import WeakKeyDictionary

from he_infer.errors import BackendError, MismatchError
from he_infer.keys.evaluation import EvaluationKeys
from he_infer.plan.ir import FloatArray
from he_infer.plan.plan import Plan
from he_infer.progress import Progress
from he_infer.runtime.backends.base import Backend, C, EncryptedBackend, LoadedKeys, P
from he_infer.runtime.backends.checked import Tracked
from he_infer.runtime.backends.cost import CostBackend, NoValue
from he_infer.runtime.backends.linear import LinearMap
from he_infer.runtime.costs import CostModel
from he_infer.runtime.kernels import Machine, Plaintexts, run_step
from he_infer.runtime.replies import make_masks, sanitise
from he_infer.wire import Ciphertext, SeededCiphertext


class EncodedWeights(Generic[P]):
    """What a backend makes of weights, by key; threads may share it once ``prepare`` filled it."""

    def __init__(self, backend: Backend[Any, P]) -> None:
        self._backend = backend
        self.stored: dict[tuple[object, ...], P] = {}
        self._linear: dict[tuple[object, ...], Any] = {}

    def __call__(
        self,
        key: tuple[object, ...],
        build: Callable[[], FloatArray | float],
        *,
        level: int,
        scale: float,
    ) -> P:
        if key in self.stored:
            return self.stored[key]
        values = build()
        found = self._backend.encode(values, level=level, scale=scale)
        if not isinstance(values, float):
            # A scalar encodes faster than it is worth remembering.
            self.stored[key] = found
        return found

    def linear(self, key: tuple[object, ...], build: Callable[[], LinearMap]) -> Any:
        if key not in self._linear:
            self._linear[key] = self._backend.prepare(build())
        return self._linear[key]


def evaluate(
    plan: Plan,
    weights: Plaintexts[P],
    backend: Backend[C, P],
    inputs: Sequence[C],
    *,
    masks: Sequence[C] | None = None,
    progress: Progress | None = None,
) -> list[C]:
    """Query ciphertexts → reply ciphertexts, covered with ``masks`` or with fresh ones.

    Raises MismatchError for another number of ciphertexts than the plan expects.
    """
    expected = plan.packing.input.layout.ciphertexts
    if len(inputs) != expected:
        raise MismatchError(f"expected {expected} ciphertexts, got {len(inputs)}")
    machine = Machine(backend=backend, plaintexts=weights, batch=plan.batch)
    values: dict[str, Sequence[C]] = {plan.graph.input.name: inputs}
    last_use = {s: i for i, step in enumerate(plan.steps) for s in step.sources}
    for i, step in enumerate(plan.steps):
        values[step.name] = run_step(machine, step, [values[n] for n in step.sources])
        for name in step.sources:
            if last_use[name] == i:
                del values[name]  # large batches would not fit otherwise
        if progress is not None:
            progress("evaluate", i + 1, len(plan.steps))
    if masks is None:
        masks = make_masks(backend, plan)
    return sanitise(backend, plan, values[plan.graph.output.name], masks)


def run_on(backend: Backend[C, P], plan: Plan, inputs: Sequence[C]) -> list[C]:
    """Evaluate once, encoding as needed."""
    return evaluate(plan, EncodedWeights(backend), backend, inputs)


def count_costs(plan: Plan, model: CostModel) -> CostBackend:
    """Run the plan on the cost backend and return it with its counts."""
    backend = CostBackend(plan.params, model, steps=plan.rotation_steps)
    queries = plan.packing.input.layout.ciphertexts
    run_on(backend, plan, [backend.fresh(scale=plan.scale)] * queries)
    backend.milliseconds += model.exchange_ms(plan.params.n, queries)
    return backend


def prepare(plan: Plan, weights: EncodedWeights[P], *, progress: Progress | None = None) -> None:
    """Encode every weight that will be remembered, before the first query comes.

    The cost backend walks the plan, and every plaintext it asks for is encoded on the way.
    """

    costs = CostBackend(plan.params, CostModel())

    class Ask:
        def __call__(
            self,
            key: tuple[object, ...],
            build: Callable[[], FloatArray | float],
            *,
            level: int,
            scale: float,
        ) -> NoValue:
            weights(key, build, level=level, scale=scale)
            return Tracked(None, level, scale)

        def linear(self, key: tuple[object, ...], build: Callable[[], LinearMap]) -> LinearMap:
            weights.linear(key, build)
            return costs.prepare(build())

    inputs = [costs.fresh(scale=plan.scale)] * plan.packing.input.layout.ciphertexts
    evaluate(plan, Ask(), costs, inputs, progress=progress)


class Executor:
    """A plan on an encrypted backend: weights encoded once, shared by all clients.

    ``run`` is CPU bound, and on SEAL holds the interpreter lock; call it from a worker.
    ``make_ready`` shortens the next ``run`` under the same keys. Both may run in several threads.
    """

    def __init__(
        self, plan: Plan, backend: EncryptedBackend, *, progress: Progress | None = None
    ) -> None:
        if backend.params != plan.params:
            raise MismatchError("the backend has other parameters than the plan")
        self.plan = plan
        self._backend = backend
        self._weights = EncodedWeights(backend)
        prepare(plan, self._weights, progress=progress)
        # One set at most for keys that are loaded, gone with them.
        self._masks: WeakKeyDictionary[LoadedKeys, list[Any]] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def load_keys(self, keys: EvaluationKeys) -> LoadedKeys:
        """Make a client's keys usable; raises MismatchError unless they cover the plan."""
        wanted = self.plan.key_levels
        missing = set(wanted.steps) - set(keys.steps)
        if missing:
            raise MismatchError(
                f"the evaluation keys lack {len(missing)} of the {len(wanted.steps)} "
                "rotation steps that this plan needs: make them for this model"
            )
        if not keys.levels.covers(wanted):
            raise MismatchError("the evaluation keys are cut too low: make them for this model")
        return self._backend.load_keys(keys)

    def make_ready(self, keys: LoadedKeys) -> None:
        """Make what covers the next reply under these keys, while nobody waits for one."""
        with self._lock:
            if keys in self._masks:
                return
        masks = make_masks(self._backend.with_keys(keys), self.plan)
        with self._lock:
            self._masks[keys] = masks

    def run(
        self,
        inputs: Sequence[SeededCiphertext | Ciphertext],
        keys: LoadedKeys,
        *,
        progress: Progress | None = None,
    ) -> list[Ciphertext]:
        """Query → reply. Raises MismatchError or BackendError for unusable ciphertexts."""
        backend = self._backend.with_keys(keys)
        spec = self.plan.client_spec
        fresh = self.plan.params.max_level
        for ciphertext in inputs:
            if ciphertext.level != fresh:
                raise MismatchError(f"expected queries at level {fresh}, got {ciphertext.level}")
            if ciphertext.scale != spec.input_scale:
                raise MismatchError("the query has another scale than the plan expects")
        handles = backend.each(backend.import_ciphertext, inputs)
        with self._lock:
            masks = self._masks.pop(keys, None)  # for one reply and no other
        try:
            replies = evaluate(
                self.plan, self._weights, backend, handles, masks=masks, progress=progress
            )
        except (ValueError, RuntimeError) as error:
            raise BackendError(f"the evaluator refused an operation: {error}") from error
        return [backend.export_ciphertext(reply) for reply in replies]
