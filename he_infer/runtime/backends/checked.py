"""What all backends share: every operand is checked, every level and scale is tracked, once.

A backend says how to compute on the values that it holds; it never sees operands that do not
fit. :class:`CheckedBackend` keeps the level, scale and size of each value beside it::

    add(a, b)   check levels and scales ─► _add(a, b) ─► Tracked(value, level, scale, size)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

from he_infer.errors import BackendError
from he_infer.keys.evaluation import CONJUGATION_STEP
from he_infer.params import CKKSParams
from he_infer.plan.ir import FloatArray
from he_infer.runtime.backends.linear import LinearMap
from he_infer.runtime.backends.stepwise import apply_stepwise, encode_linear

V = TypeVar("V")  # what a backend holds of a ciphertext
E = TypeVar("E")  # and of an encoded plaintext

SCALE_TOLERANCE: Final = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Tracked(Generic[V]):
    """A ciphertext or a plaintext: the value that the backend holds, and where it stands.

    ``size``: polynomials of a ciphertext, two, or three before relinearisation.
    """

    value: V
    level: int
    scale: float
    size: int = 2


class CheckedBackend(ABC, Generic[V, E]):
    """Implements ``Backend`` over the methods below that begin with an underscore."""

    def __init__(self, params: CKKSParams) -> None:
        self._params = params

    @property
    def params(self) -> CKKSParams:
        return self._params

    def level(self, a: Tracked[V]) -> int:
        return a.level

    def scale(self, a: Tracked[V]) -> float:
        return a.scale

    def size(self, a: Tracked[V]) -> int:
        return a.size

    def encode(self, values: FloatArray | float, *, level: int, scale: float) -> Tracked[E]:
        if not isinstance(values, float) and values.shape != (self._params.slots,):
            raise BackendError(f"encode takes {self._params.slots} values, got {values.shape}")
        return Tracked(self._encode(values, level, scale), level, scale)

    def add(self, a: Tracked[V], b: Tracked[V]) -> Tracked[V]:
        check_addable(a, b)
        return replace(a, value=self._add(a, b), size=max(a.size, b.size))

    def add_plain(self, a: Tracked[V], p: Tracked[E]) -> Tracked[V]:
        check_addable(a, p)
        return replace(a, value=self._add_plain(a, p))

    def multiply_plain(self, a: Tracked[V], p: Tracked[E]) -> Tracked[V]:
        check_level(a, p)
        return replace(a, value=self._multiply_plain(a, p), scale=a.scale * p.scale)

    def multiply(self, a: Tracked[V], b: Tracked[V]) -> Tracked[V]:
        check_level(a, b)
        if (a.size, b.size) != (2, 2):
            raise BackendError("relinearise before multiplying again")
        return replace(a, value=self._multiply(a, b), scale=a.scale * b.scale, size=3)

    def relinearize(self, a: Tracked[V]) -> Tracked[V]:
        if a.size != 3:
            raise BackendError("only a product of two ciphertexts can be relinearised")
        return replace(a, value=self._relinearize(a), size=2)

    def rotate(self, a: Tracked[V], step: int) -> Tracked[V]:
        self.check_rotatable(step, a.size)
        return replace(a, value=self._rotate(a, step))

    def rescale(self, a: Tracked[V]) -> Tracked[V]:
        if a.level == 0:
            raise BackendError("cannot rescale at level 0: the modulus chain is used up")
        scale = a.scale / self._params.primes[a.level]
        return replace(a, value=self._rescale(a), level=a.level - 1, scale=scale)

    def drop_to(self, a: Tracked[V], level: int) -> Tracked[V]:
        if not 0 <= level <= a.level:
            raise BackendError(f"cannot drop from level {a.level} to level {level}")
        return a if level == a.level else replace(a, value=self._drop(a, level), level=level)

    def real_part(self, a: Tracked[V]) -> Tracked[V]:
        keys = self._key_steps()
        if keys is not None and CONJUGATION_STEP not in keys:
            raise BackendError("no Galois key for conjugation")
        if a.size != 2:
            raise BackendError("relinearise before conjugating")
        return replace(a, value=self._add_conjugate(a), scale=2 * a.scale)

    def flood(self, a: Tracked[V], bound: int, *, period: int) -> Tracked[V]:
        return replace(a, value=self._flood(a, bound, period))

    def encrypt_zero(self, *, level: int, scale: float) -> Tracked[V]:
        return Tracked(self._encrypt_zero(level, scale), level, scale)

    def prepare(self, linear: LinearMap) -> Any:
        return encode_linear(self, linear)

    def apply(self, prepared: Any, sources: Sequence[Tracked[V]]) -> list[Tracked[V]]:
        return apply_stepwise(self, prepared, sources)

    def each(
        self, operation: Callable[[Tracked[V]], Tracked[V]], items: Sequence[Tracked[V]]
    ) -> list[Tracked[V]]:
        return [operation(item) for item in items]

    @abstractmethod
    def draw(self, count: int) -> FloatArray: ...

    def check_rotatable(self, step: int, size: int) -> None:
        """Raise BackendError for a step out of range, without its key, or for a raw product."""
        keys = self._key_steps()
        if not 0 < step < self._params.slots:
            raise BackendError(f"rotation step {step} is not in 1 … {self._params.slots - 1}")
        if keys is not None and step not in keys:
            raise BackendError(f"no Galois key for rotation step {step}")
        if size != 2:
            raise BackendError("relinearise before rotating")

    def check_sources(self, linear: LinearMap, sources: Sequence[Tracked[V]]) -> None:
        """Raise BackendError unless all sources are at the map's level and at one scale."""
        for source in sources:
            if source.level != linear.level:
                raise BackendError(f"a map at level {linear.level} met level {source.level}")
            check_addable(sources[0], source)

    @abstractmethod
    def _key_steps(self) -> Collection[int] | None:
        """Steps whose Galois keys are at hand; None where no key is ever missing."""

    @abstractmethod
    def _encode(self, values: FloatArray | float, level: int, scale: float) -> E: ...
    @abstractmethod
    def _add(self, a: Tracked[V], b: Tracked[V]) -> V: ...
    @abstractmethod
    def _add_plain(self, a: Tracked[V], p: Tracked[E]) -> V: ...
    @abstractmethod
    def _multiply_plain(self, a: Tracked[V], p: Tracked[E]) -> V: ...
    @abstractmethod
    def _multiply(self, a: Tracked[V], b: Tracked[V]) -> V: ...
    @abstractmethod
    def _relinearize(self, a: Tracked[V]) -> V: ...
    @abstractmethod
    def _rotate(self, a: Tracked[V], step: int) -> V: ...
    @abstractmethod
    def _rescale(self, a: Tracked[V]) -> V: ...
    @abstractmethod
    def _drop(self, a: Tracked[V], level: int) -> V: ...
    @abstractmethod
    def _add_conjugate(self, a: Tracked[V]) -> V: ...
    @abstractmethod
    def _flood(self, a: Tracked[V], bound: int, period: int) -> V: ...
    @abstractmethod
    def _encrypt_zero(self, level: int, scale: float) -> V: ...


def check_addable(a: Tracked[Any], b: Tracked[Any]) -> None:
    """Raise BackendError unless two operands of an addition agree."""
    check_level(a, b)
    if abs(a.scale - b.scale) > SCALE_TOLERANCE * a.scale:
        raise BackendError(f"cannot add scale {a.scale!r} to scale {b.scale!r}")


def check_level(a: Tracked[Any], b: Tracked[Any]) -> None:
    """Raise BackendError unless two operands have the same level."""
    if a.level != b.level:
        raise BackendError(f"cannot combine level {a.level} with level {b.level}")
