"""The evaluation of each kind of step, written once over the Backend protocol.

Plaintexts are asked for by key, so that an executor encodes each of them once; kernels never
see keys of any other sort, clocks or bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from he_infer.plan.ir import FloatArray
from he_infer.plan.packing import Diagonals, repeats
from he_infer.plan.steps import AffineStep, PolynomialStep, SquareStep, Step
from he_infer.runtime.backends.base import Backend, C, P
from he_infer.runtime.backends.linear import Group, LinearMap, Product

P_co = TypeVar("P_co", covariant=True)


class Plaintexts(Protocol[P_co]):
    """Encodes slot values the first time a key is seen, and remembers."""

    def __call__(
        self,
        key: tuple[object, ...],
        build: Callable[[], FloatArray | float],
        *,
        level: int,
        scale: float,
    ) -> P_co: ...

    def linear(self, key: tuple[object, ...], build: Callable[[], LinearMap]) -> Any:
        """What the backend's ``prepare`` makes of a linear map, the first time and after."""
        ...


@dataclass(frozen=True, kw_only=True)
class Machine(Generic[C, P]):
    """A backend, its encoded plaintexts, and how many records share a ciphertext."""

    backend: Backend[C, P]
    plaintexts: Plaintexts[P]
    batch: int

    def spread(self, values: FloatArray) -> FloatArray | float:
        """One period of feature slots → all slots, or a scalar if they are all alike."""
        if values.shape == (1,):
            return float(values[0])
        repeats = self.backend.params.slots // (self.batch * len(values))
        return np.repeat(np.tile(values, repeats), self.batch)


def run_step(machine: Machine[C, P], step: Step, inputs: Sequence[Sequence[C]]) -> list[C]:
    """Evaluate one step; ``inputs[i]`` are the ciphertexts of its i-th source."""
    match step:
        case AffineStep():
            return _affine(machine, step, inputs)
        case SquareStep():
            backend = machine.backend

            def square(c: C) -> C:
                product = backend.multiply(c, c)
                if step.relinearizes:
                    product = backend.relinearize(product)
                return backend.rescale(product) if step.rescales else product

            return backend.each(square, inputs[0])
        case PolynomialStep():
            return [_polynomial(machine, step, i, c) for i, c in enumerate(inputs[0])]


# -- affine ------------------------------------------------------------------------


def _affine(machine: Machine[C, P], step: AffineStep, inputs: Sequence[Sequence[C]]) -> list[C]:
    backend = machine.backend
    results: list[C | None] = [None] * len(step.bias)
    prime = backend.params.primes[step.level]
    for index, (part, source) in enumerate(zip(step.parts, inputs, strict=True)):
        lowered = [backend.drop_to(c, step.level) for c in source]
        scale = step.scale * prime / backend.scale(lowered[0])
        prepared = machine.plaintexts.linear(
            (step.name, index),
            lambda part=part, scale=scale: linear_map(machine, part, step.level, scale),  # type: ignore[misc]
        )
        for target, total in enumerate(backend.apply(prepared, lowered)):
            before = results[target]
            results[target] = total if before is None else backend.add(before, total)
    return [_add_bias(machine, step, t, total) for t, total in enumerate(results)]


def linear_map(machine: Machine[C, P], part: Diagonals, level: int, scale: float) -> LinearMap:
    """A part's diagonals as a linear map over all slots; values are spread when asked for."""
    slots = machine.backend.params.slots
    giants = part.giants[::-1]
    scalars = part.period == 1

    def slot_step(feature_step: int) -> int:
        return feature_step * machine.batch % slots

    def product(t: int) -> Product:
        _, source, baby, _ = part.terms[t]
        return Product(source, slot_step(baby), lambda: machine.spread(part.values[t]))

    by_place: dict[tuple[int, int], list[int]] = {}
    for t, (target, _, _, giant) in enumerate(part.terms):
        by_place.setdefault((target, giant), []).append(t)
    targets = []
    for target in range(part.targets):
        groups: list[Group] = []
        for position, giant in enumerate(giants):
            terms = by_place.get((target, giant), [])
            if not terms and not groups:
                continue  # the walk begins at the outermost giant step that this target needs
            following = giants[position + 1] if position + 1 < len(giants) else 0
            groups.append(Group(tuple(map(product, terms)), slot_step(giant - following)))
        targets.append(tuple(groups))
    return LinearMap(
        level=level,
        scale=scale,
        targets=tuple(targets),
        folds=tuple(slot_step(fold) for fold in part.folds),
        scalars=scalars,
        repeats=repeats(part.period * machine.batch, slots),
    )


def _add_bias(machine: Machine[C, P], step: AffineStep, target: int, total: C | None) -> C:
    backend = machine.backend
    assert total is not None, "the planner keeps at least one term per ciphertext"
    plain = machine.plaintexts(
        (step.name, "bias", target),
        lambda: machine.spread(step.bias[target]),
        level=step.level - 1,
        scale=backend.scale(total),
    )
    return backend.add_plain(total, plain)


# -- polynomials -------------------------------------------------------------------


def _polynomial(machine: Machine[C, P], step: PolynomialStep, target: int, u: C) -> C:
    """Paterson–Stockmeyer in the Chebyshev basis, at the least depth: only T_{2^i} is needed."""
    backend = machine.backend
    degree = len(step.coefficients) - 1
    powers = {1: u}
    order = 1
    while 2 * order <= degree:
        power = powers[order]
        square = backend.rescale(backend.relinearize(backend.multiply(power, power)))
        doubled = backend.add(square, square)
        minus_one = machine.plaintexts(
            (step.name, "-1", order),
            lambda: -1.0,
            level=backend.level(doubled),
            scale=backend.scale(doubled),
        )
        powers[2 * order] = backend.add_plain(doubled, minus_one)
        order *= 2
    evaluation = _Evaluation(machine=machine, name=step.name, target=target, powers=powers)
    return evaluation.run(step.coefficients[:, target], "", step.level, step.scale)


@dataclass(frozen=True, kw_only=True)
class _Evaluation(Generic[C, P]):
    machine: Machine[C, P]
    name: str
    target: int
    powers: dict[int, C]

    def run(self, coefficients: FloatArray, path: str, level: int, scale: float) -> C:
        """Σ_j coefficients[j] · T_j, landing on exactly this level and scale."""
        backend = self.machine.backend
        degree = len(coefficients) - 1
        order = 1 << (degree.bit_length() - 1)
        power = backend.drop_to(self.powers[order], level + 1)
        prime = backend.params.primes[level + 1]
        factor = scale * prime / backend.scale(power)
        high, low = divide(coefficients, order)
        if len(high) == 1:
            plain = self._plain(high[0], f"{path}h", level + 1, factor)
            product = backend.rescale(backend.multiply_plain(power, plain))
        else:
            inner = self.run(high, f"{path}h", level + 1, factor)
            product = backend.rescale(backend.relinearize(backend.multiply(inner, power)))
        if len(low) == 1:
            plain = self._plain(low[0], f"{path}l", level, backend.scale(product))
            return backend.add_plain(product, plain)
        return backend.add(product, self.run(low, f"{path}l", level, backend.scale(product)))

    def _plain(self, values: FloatArray, path: str, level: int, scale: float) -> P:
        return self.machine.plaintexts(
            (self.name, self.target, path),
            lambda: self.machine.spread(values),
            level=level,
            scale=scale,
        )


def divide(coefficients: FloatArray, order: int) -> tuple[FloatArray, FloatArray]:
    """Chebyshev division p = high · T_order + low, from T_m·T_j = (T_{m+j} + T_{m−j}) / 2."""
    high = 2.0 * coefficients[order:]
    high[0] = coefficients[order]
    low = coefficients[:order].copy()
    for j in range(1, len(high)):
        low[order - j] -= coefficients[order + j]
    return high, low
