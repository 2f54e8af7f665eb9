"""The protocol that kernels are written against, and the checks its implementations share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from he_infer.errors import BackendError
from he_infer.params import CKKSParams
from he_infer.plan.ir import FloatArray

if TYPE_CHECKING:
    from he_infer.runtime.backends.linear import LinearMap

C = TypeVar("C")  # a backend's ciphertext
P = TypeVar("P")  # a backend's encoded plaintext

_SCALE_TOLERANCE: Final = 1e-9


class Backend(Protocol[C, P]):
    """CKKS operations. Every operation returns a new value and leaves its operands alone.

    Levels: products keep the level, ``rescale`` takes one. Scales: products multiply,
    ``rescale`` divides by the prime it drops. Adding needs equal levels and scales.
    All raise BackendError for operands that do not fit.
    """

    @property
    def params(self) -> CKKSParams: ...
    def encode(self, values: FloatArray | float, *, level: int, scale: float) -> P:
        """Encode (N/2,) slot values, or one value for all slots."""
        ...

    def level(self, a: C) -> int: ...
    def scale(self, a: C) -> float: ...
    def size(self, a: C) -> int:
        """Polynomials of a ciphertext: two, or three before relinearisation."""
        ...

    def add(self, a: C, b: C) -> C: ...
    def add_plain(self, a: C, p: P) -> C: ...
    def multiply_plain(self, a: C, p: P) -> C: ...
    def multiply(self, a: C, b: C) -> C:
        """Product of size three; squares when both operands are the same object."""
        ...

    def relinearize(self, a: C) -> C: ...
    def rotate(self, a: C, step: int) -> C:
        """Rotate the slots left by ``step``, 0 < step < N/2; needs its Galois key."""
        ...

    def rescale(self, a: C) -> C: ...
    def drop_to(self, a: C, level: int) -> C:
        """The same value with fewer primes; the scale stays."""
        ...

    def prepare(self, linear: LinearMap) -> Any:
        """Encode a linear map's values, once for all queries."""
        ...

    def apply(self, prepared: Any, sources: Sequence[C]) -> list[C]:
        """Evaluate what ``prepare`` returned: a ciphertext per target, relinearised, rescaled."""
        ...

    def each(self, operation: Callable[[C], C], items: Sequence[C]) -> list[C]:
        """``operation`` on every ciphertext, in parallel where the backend can."""
        ...

    def real_part(self, a: C) -> C:
        """The slots' real parts: a plus its conjugate, at twice the scale; needs key step 0."""
        ...

    def draw(self, count: int) -> FloatArray:
        """(count,) numbers uniform on [0, 1), to disguise one reply; see ``sampling``."""
        ...

    def flood(self, a: C, bound: int, *, period: int) -> C:
        """Add coefficients uniform on [−bound, bound) whose slots repeat with ``period``."""
        ...

    def encrypt_zero(self, *, level: int, scale: float) -> C:
        """A fresh encryption of zero under the client's public key."""
        ...


def check_addable(levels: tuple[int, int], scales: tuple[float, float]) -> None:
    """Raise BackendError unless two operands of an addition agree."""
    if levels[0] != levels[1]:
        raise BackendError(f"cannot add level {levels[0]} to level {levels[1]}")
    if abs(scales[0] - scales[1]) > _SCALE_TOLERANCE * scales[0]:
        raise BackendError(f"cannot add scale {scales[0]!r} to scale {scales[1]!r}")


def check_level(levels: tuple[int, int]) -> None:
    """Raise BackendError unless two operands of a product have the same level."""
    if levels[0] != levels[1]:
        raise BackendError(f"cannot multiply level {levels[0]} by level {levels[1]}")


def check_factors(sizes: tuple[int, int]) -> None:
    """Raise BackendError unless both factors have been relinearised."""
    if sizes != (2, 2):
        raise BackendError("relinearise before multiplying again")


def check_product(size: int) -> None:
    if size != 3:
        raise BackendError("only a product of two ciphertexts can be relinearised")


def check_rotatable(step: int, slots: int, size: int, keys: Collection[int] | None) -> None:
    """Raise BackendError for a step out of range or without its key (None: all keys exist)."""
    if not 0 < step < slots:
        raise BackendError(f"rotation step {step} is not in 1 … {slots - 1}")
    if keys is not None and step not in keys:
        raise BackendError(f"no Galois key for rotation step {step}")
    if size != 2:
        raise BackendError("relinearise before rotating")


def check_conjugable(size: int, keys: Collection[int] | None) -> None:
    """Raise BackendError without the key of step 0 (None: all keys exist)."""
    if keys is not None and 0 not in keys:
        raise BackendError("no Galois key for conjugation")
    if size != 2:
        raise BackendError("relinearise before conjugating")


def check_slots(values: FloatArray, slots: int) -> None:
    if values.shape != (slots,):
        raise BackendError(f"encode takes {slots} values, got {values.shape}")


def check_rescalable(level: int) -> None:
    if level == 0:
        raise BackendError("cannot rescale at level 0: the modulus chain is used up")


def check_droppable(level: int, target: int) -> None:
    if not 0 <= target <= level:
        raise BackendError(f"cannot drop from level {level} to level {target}")
