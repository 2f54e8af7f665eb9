"""The evaluation of each kind of step, written once over the Backend protocol.

Plaintexts are asked for by key, so that an executor encodes each of them once; kernels never
see keys of any other sort, clocks or bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from he_infer.backends.base import Backend, C, P
from he_infer.ir import FloatArray
from he_infer.packing import Diagonals

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


@dataclass(frozen=True, kw_only=True)
class AffineStep:
    """y = Σ parts · x + bias, from ``level`` to ``level − 1``, at exactly ``scale``.

    ``parts[i]`` reads ``sources[i]``; ``bias``: (ciphertexts, feature slots).
    """

    name: str
    sources: tuple[str, ...]
    parts: tuple[Diagonals, ...]
    bias: FloatArray
    level: int
    scale: float


@dataclass(frozen=True, kw_only=True)
class SquareStep:
    name: str
    source: str


@dataclass(frozen=True, kw_only=True)
class PolynomialStep:
    """Chebyshev coefficients by slot: (degree + 1, ciphertexts, feature slots)."""

    name: str
    source: str
    coefficients: FloatArray
    level: int  # of the result
    scale: float


Step = AffineStep | SquareStep | PolynomialStep


@dataclass(frozen=True, kw_only=True)
class Machine(Generic[C, P]):
    """A backend, its encoded plaintexts, and how many records share a ciphertext."""

    backend: Backend[C, P]
    plaintexts: Plaintexts[P]
    batch: int

    def rotate(self, a: C, feature_step: int) -> C:
        slots = self.backend.params.slots
        step = feature_step * self.batch % slots
        return a if step == 0 else self.backend.rotate(a, step)

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
            return [backend.rescale(backend.relinearize(backend.multiply(c, c))) for c in inputs[0]]
        case PolynomialStep():
            return [_polynomial(machine, step, i, c) for i, c in enumerate(inputs[0])]


# -- affine ------------------------------------------------------------------------


def _affine(machine: Machine[C, P], step: AffineStep, inputs: Sequence[Sequence[C]]) -> list[C]:
    backend = machine.backend
    results: list[C | None] = [None] * len(step.bias)
    for index, (part, source) in enumerate(zip(step.parts, inputs, strict=True)):
        lowered = [backend.drop_to(c, step.level) for c in source]
        rotated = _baby_steps(machine, part, lowered)
        for target in range(part.targets):
            total = _giant_steps(machine, step, index, part, target, rotated)
            if total is None:
                continue
            for fold in part.folds:
                total = backend.add(total, machine.rotate(total, fold))
            before = results[target]
            results[target] = total if before is None else backend.add(before, total)
    return [_add_bias(machine, step, t, total) for t, total in enumerate(results)]


def _baby_steps(
    machine: Machine[C, P], part: Diagonals, source: Sequence[C]
) -> dict[tuple[int, int], C]:
    """The rotations of each source ciphertext that are needed, walked to from 0."""
    babies = part.babies
    zero = babies.index(0)
    needed: dict[int, set[int]] = {}
    for _, ciphertext, baby, _ in part.terms:
        needed.setdefault(ciphertext, set()).add(baby)
    rotated: dict[tuple[int, int], C] = {}
    for ciphertext, wanted in needed.items():
        for walk in (babies[zero:], babies[zero::-1]):
            current, done = source[ciphertext], 0
            rotated[ciphertext, 0] = current
            for baby in walk[1:]:
                if not any(abs(w) >= abs(baby) and w * baby > 0 for w in wanted):
                    break
                current = machine.rotate(current, baby - done)
                rotated[ciphertext, baby], done = current, baby
    return rotated


def _giant_steps(
    machine: Machine[C, P],
    step: AffineStep,
    index: int,
    part: Diagonals,
    target: int,
    rotated: dict[tuple[int, int], C],
) -> C | None:
    """Σ_g rotate(Σ_b diagonal · rotate(x, b), g), from the outermost giant step inwards."""
    groups: dict[int, list[int]] = {}
    for t, (to, _, _, giant) in enumerate(part.terms):
        if to == target:
            groups.setdefault(giant, []).append(t)
    giants = part.giants
    zero = giants.index(0)
    total = _inner_sum(machine, step, index, part, groups.get(0, []), rotated)
    for walk in (giants[:zero], giants[:zero:-1]):
        partial: C | None = None
        for position, giant in enumerate(walk):
            inner = _inner_sum(machine, step, index, part, groups.get(giant, []), rotated)
            partial = _add(machine, partial, inner)
            following = walk[position + 1] if position + 1 < len(walk) else 0
            if partial is not None:
                partial = machine.rotate(partial, giant - following)
        total = _add(machine, total, partial)
    return total


def _inner_sum(
    machine: Machine[C, P],
    step: AffineStep,
    index: int,
    part: Diagonals,
    terms: Sequence[int],
    rotated: dict[tuple[int, int], C],
) -> C | None:
    """Σ diagonal · ciphertext over some terms, rescaled; None without terms."""
    backend = machine.backend
    total: C | None = None
    prime = backend.params.primes[step.level]
    for t in terms:
        _, source, baby, _ = part.terms[t]
        ciphertext = rotated[source, baby]
        plain = machine.plaintexts(
            (step.name, index, t),
            lambda t=t: machine.spread(part.values[t]),  # type: ignore[misc]
            level=step.level,
            scale=step.scale * prime / backend.scale(ciphertext),
        )
        total = _add(machine, total, backend.multiply_plain(ciphertext, plain))
    return None if total is None else backend.rescale(total)


def _add(machine: Machine[C, P], a: C | None, b: C | None) -> C | None:
    if a is None or b is None:
        return b if a is None else a
    return machine.backend.add(a, b)


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
