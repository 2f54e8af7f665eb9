"""The compiled plan: what the server runs, and what it tells clients.

A plan keeps the normal-form graph, the parameters and the packing choices. The diagonals that
the server multiplies by follow from them and are built when needed. The digest covers every
field, so two parties with equal digests have the same computation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from he_infer.errors import CompileError
from he_infer.keys.evaluation import CONJUGATION_STEP
from he_infer.params import CKKSParams
from he_infer.plan import canonical, ir
from he_infer.plan.client_spec import ClientSpec
from he_infer.plan.layout import IntArray, Layout
from he_infer.plan.packing import Packing, diagonals, entries, repeats
from he_infer.plan.placement import Placement, place
from he_infer.plan.privacy import FunctionPrivacy
from he_infer.plan.steps import AffineStep, PolynomialStep, SquareStep, Step
from he_infer.wire.key_levels import KeyLevels


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """``graph`` in normal form, laid out by ``packing`` under ``params``.

    Raises CompileError for a graph or a packing with parts missing.

    ``scale``: of the query and of every Affine's output but the last, which has
    ``output_scale`` so that the outputs fit the first prime; ``lazy``: squares are rescaled with
    the next Affine, not at once (see ``placement``); ``batch``: records per query;
    ``input_range``: of the calibration sample; ``output_range``: largest |output| on it.
    """

    name: str
    graph: ir.Graph
    params: CKKSParams
    scale: float
    output_scale: float
    lazy: bool
    batch: int
    packing: Packing
    input_range: tuple[float, float]
    output_range: float
    privacy: FunctionPrivacy = field(default_factory=FunctionPrivacy)

    def __post_init__(self) -> None:
        ir.verify(self.graph)
        affine = [node for node in self.graph if isinstance(node, ir.Affine)]
        pairs = {(node.name, source) for node in affine for source in node.sources}
        if self.packing.layouts.keys() != {node.name for node in self.graph}:
            raise CompileError("a plan needs a layout for every node and for nothing else")
        if self.packing.choices.keys() != pairs:
            raise CompileError("a plan needs a choice for every source of an affine node")

    @property
    def records_charged(self) -> int:
        """Records that a query counts as: what its ciphertexts can carry, used or not."""
        return self.batch * self.privacy.records_per_slot

    @property
    def reply_scale(self) -> float:
        """The reply's scale: the last Affine's, doubled by adding the conjugate, times that of
        the factors."""
        scale = self.placed[self.graph.output.name].scale
        doubled = 2 * scale if self.privacy.real_part else scale
        return doubled * 2.0 ** self.privacy.factor_bits(self.batch)

    @property
    def reply_period(self) -> int:
        """Slots after which a reply's content repeats."""
        return self.packing.layouts[self.graph.output.name].period * self.batch

    @cached_property
    def placed(self) -> dict[str, Placement]:
        return place(
            self.graph,
            self.params,
            lazy=self.lazy,
            scale=self.scale,
            output_scale=self.output_scale,
        )

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The graph's computing nodes, lowered; builds every diagonal."""
        return tuple(self._lower(n) for n in self.graph if not isinstance(n, ir.Input))

    @cached_property
    def key_levels(self) -> KeyLevels:
        """The evaluation keys that the plan needs, each with the highest level of its use."""
        rotations: dict[int, int] = {}
        relin: list[int] = []
        for step in self.steps:
            if isinstance(step, AffineStep):
                for feature_step in {s for part in step.parts for s in part.steps}:
                    slots = feature_step * self.batch % self.params.slots
                    rotations[slots] = max(rotations.get(slots, 0), step.level)
                if not self._relinearized(step.sources):
                    relin.append(step.level)
            elif isinstance(step, PolynomialStep) or step.relinearizes:
                relin.append(self.placed[step.sources[0]].level)
        rotations.pop(0, None)
        last = self.placed[self.graph.output.name].level
        if self.privacy.real_part:
            rotations[CONJUGATION_STEP] = last
        return KeyLevels(
            public=last,
            relin=max(relin, default=None),
            rotations=tuple(sorted(rotations.items())),
        )

    @property
    def rotation_steps(self) -> tuple[int, ...]:
        """Galois steps that the plan needs, in slots, to the left."""
        return self.key_levels.steps

    def _relinearized(self, sources: Sequence[str]) -> bool:
        steps = {step.name: step for step in self.steps}
        squares = [steps[name] for name in sources if isinstance(steps.get(name), SquareStep)]
        return all(isinstance(s, SquareStep) and s.relinearizes for s in squares)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the plan's canonical bytes, in hexadecimal."""
        return canonical.digest(self)

    @cached_property
    def client_spec(self) -> ClientSpec:
        source = self.packing.input
        out = self.packing.layouts[self.graph.output.name]
        placed = self.placed[self.graph.output.name]
        return ClientSpec(
            model=self.name,
            plan_digest=self.digest,
            params=self.params,
            input_shape=self.graph.input.shape,
            n_outputs=ir.features(self.graph.output),
            batch=self.batch,
            input_slots=input_slots(source.layout, source.gather),
            output_slots=out.positions.astype(np.int32),
            n_output_ciphertexts=out.ciphertexts,
            input_scale=self.scale,
            output_scale=self.reply_scale,
            output_level=placed.level,
            key_levels=self.key_levels,
            input_range=self.input_range,
        )

    def _lower(self, node: ir.Node) -> Step:
        match node:
            case ir.Affine():
                return self._lower_affine(node)
            case ir.Square():
                return SquareStep(
                    name=node.name,
                    sources=node.sources,
                    rescales=not self.lazy,
                    # A throughput layout has no rotations; sums of products are fewer there.
                    relinearizes=self.batch < self.params.slots,
                )
            case ir.Polynomial():
                return self._lower_polynomial(node)
        raise CompileError(f"{node.name} is not in normal form")

    def _lower_affine(self, node: ir.Affine) -> AffineStep:
        target = self.packing.layouts[node.name]
        parts = []
        for source, matrix in zip(node.sources, node.matrices, strict=True):
            if source == self.graph.input.name and self.packing.input.first_matrix is not None:
                matrix = self.packing.input.first_matrix
            choice = self.packing.choices[node.name, source]
            found = entries(matrix, self.packing.layouts[source], target, lanes=choice.lanes)
            parts.append(diagonals(found, choice.split))
        placed = self.placed[node.name]
        return AffineStep(
            name=node.name,
            sources=node.sources,
            parts=tuple(parts),
            bias=self._bias(node, target),
            level=placed.level + 1,
            scale=placed.scale,
        )

    def _bias(self, node: ir.Affine, target: Layout) -> ir.FloatArray:
        placed = by_slot(node.bias, target)
        if self.privacy.spills and node.name == self.graph.output.name:
            # As a naive product leaves it: the bias repeated through slots that hold no output.
            rows, columns = np.nonzero(by_slot(np.ones(len(node.bias)), target) == 0)
            placed[rows, columns] = node.bias[columns % len(node.bias)]
        return placed

    def _lower_polynomial(self, node: ir.Polynomial) -> PolynomialStep:
        layout = self.packing.layouts[node.name]
        placed = self.placed[node.name]
        rows = [by_slot(column, layout) for column in node.coefficients.T]
        return PolynomialStep(
            name=node.name,
            sources=node.sources,
            coefficients=np.stack(rows),
            level=placed.level,
            scale=placed.scale,
        )


def by_slot(values: ir.FloatArray, layout: Layout) -> ir.FloatArray:
    """(features,) values → (ciphertexts, period) slots, zero where no feature lies."""
    ciphertext, slot = np.divmod(layout.positions, layout.slots)
    placed = np.zeros((layout.ciphertexts, layout.period))
    placed[ciphertext, slot] = values
    return placed


def input_slots(layout: Layout, gather: IntArray) -> NDArray[np.int32]:
    """The input feature of every feature slot (−1: zero), repetitions written out."""
    filled = np.full((layout.ciphertexts, layout.period), -1, dtype=np.int32)
    ciphertext, slot = np.divmod(layout.positions, layout.slots)
    for copy in range(layout.spread):
        filled[ciphertext, slot + copy * layout.stride] = gather
    return np.tile(filled, (1, layout.slots // layout.period))


def encoded_bytes(plan: Plan, *, packed: bool = True) -> int:
    """Memory that the encoded weights take; numbers for all slots take none to speak of.

    ``packed``: as the native evaluator keeps them, each word in its prime's bits and runs of
    equal words once; otherwise as SEAL does, every word in full.
    """
    params, total = plan.params, 0
    for step in plan.steps:
        if not isinstance(step, AffineStep):
            continue
        for part in step.parts:
            if part.period == 1:
                continue
            period = part.period * plan.batch
            hoisted = packed and len(part.babies) > 1
            rows = [*params.primes[: step.level + 1], *([params.special_prime] * hoisted)]
            if not packed:
                each = len(rows) * params.n * 8
            elif repeats(period, params.slots):
                each = len(rows) * 2 * period * 8
            else:
                each = sum(q.bit_length() for q in rows) * params.n // 8
            total += len(part.terms) * each
    return total
