"""What kernels, executors and servers ask of a backend, as two protocols.

:class:`Backend` is CKKS arithmetic; every backend has it. :class:`EncryptedBackend` adds what a
server needs: a client's keys, and ciphertexts as they travel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, TypeVar

from he_infer.keys.evaluation import EvaluationKeys
from he_infer.params import CKKSParams
from he_infer.plan.ir import FloatArray
from he_infer.runtime.backends.linear import LinearMap
from he_infer.runtime.costs import CostModel
from he_infer.wire import Ciphertext, SeededCiphertext

C = TypeVar("C")  # a backend's ciphertext
P = TypeVar("P")  # a backend's encoded plaintext


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
        """(count,) numbers uniform on [0, 1), to perturb one reply; see ``sampling``."""
        ...

    def flood(self, a: C, bound: int, *, period: int) -> C:
        """Add coefficients uniform on [−bound, bound) whose slots repeat with ``period``."""
        ...

    def encrypt_zero(self, *, level: int, scale: float) -> C:
        """A fresh encryption of zero under the client's public key."""
        ...


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LoadedKeys:
    """A client's evaluation keys in the form that one backend computes with.

    ``steps``: the rotations that they allow, 0 meaning conjugation.
    """

    held: Any
    steps: frozenset[int]


class EncryptedBackend(Backend[Any, Any], Protocol):
    """A backend on real ciphertexts. The registry in ``choose`` makes it by its name.

    ``costs``: its cost model, before anyone measures this machine. ``packed``: whether encoded
    weights are kept at their primes' bit lengths, see ``encoded_bytes``.
    """

    name: ClassVar[str]
    costs: ClassVar[CostModel]
    packed: ClassVar[bool]

    def __init__(self, params: CKKSParams, *, threads: int = 1) -> None:
        """``threads``: for each operation, if the backend can use several.

        Raises BackendError where it cannot run.
        """

    @classmethod
    def missing(cls) -> str:
        """Why this backend cannot run on this machine, and what to do; empty if it can."""
        ...

    @classmethod
    def paths(cls) -> tuple[str, ...]:
        """The arithmetic paths that this machine can run, best first, if there are several."""
        ...

    def load_keys(self, keys: EvaluationKeys) -> LoadedKeys:
        """Prepare a client's keys; raises MismatchError for keys of other parameters."""
        ...

    def with_keys(self, keys: LoadedKeys) -> Self:
        """The same backend, with the same encoded weights, for one client's keys."""
        ...

    def import_ciphertext(self, ciphertext: Ciphertext | SeededCiphertext) -> Any:
        """A ciphertext from the residues that were sent; raises WireError or BackendError."""
        ...

    def export_ciphertext(self, a: Any) -> Ciphertext:
        """The residues of a ciphertext, as they are sent."""
        ...
