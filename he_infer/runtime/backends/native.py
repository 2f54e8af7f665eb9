"""Our own evaluator: hoisted rotations, fused linear maps, several threads, no lock held.

It computes on public data only, and needs no SEAL: ciphertexts and keys come as residues and
seeds (wire), are checked by the extension and live in its memory. Elementary operations give
SEAL's result bit for bit; linear maps share digits and divisions, so they agree with SEAL's
within the noise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he_infer import native
from he_infer.errors import BackendError, MismatchError
from he_infer.keys.evaluation import CONJUGATION_STEP, EvaluationKeys, galois_element
from he_infer.params import CKKSParams
from he_infer.plan.ir import FloatArray
from he_infer.runtime.backends.base import (
    check_addable,
    check_conjugable,
    check_droppable,
    check_factors,
    check_level,
    check_product,
    check_rescalable,
    check_rotatable,
    check_slots,
)
from he_infer.runtime.backends.linear import Group, LinearMap
from he_infer.runtime.encoding import encode_slots
from he_infer.runtime.sampling import centred_binomial, ternary, uniform, unit
from he_infer.wire import Ciphertext, SeededCiphertext
from he_infer.wire.types import key_moduli

RELINEARIZATION = 1  # the Galois element that stands for the relinearisation key


@dataclass(frozen=True, slots=True, eq=False)
class NativeCiphertext:
    """``handle``: residues in the extension's memory; ``scale``: of its message."""

    handle: Any
    scale: float


@dataclass(frozen=True, slots=True, eq=False)
class NativePlaintext:
    handle: Any
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class NativeKeys:
    """A client's keys, expanded; ``switch`` by Galois element; ``digest`` names them."""

    switch: Mapping[int, Any]
    public: NDArray[np.uint64]  # (2, l + 2, n), b and a; see SeededPublicKey
    steps: frozenset[int]
    digest: str


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Weighted sums by numbers, as rows of a sparse matrix."""

    linear: LinearMap
    starts: NDArray[np.int64]
    columns: NDArray[np.int32]
    values: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class _Rotations:
    linear: LinearMap
    handle: Any


class NativeBackend:
    """CKKS on the extension, for one parameter set.

    ``threads``: for each call; ``path``: of ``native.paths()``, or "best". Raises BackendError
    where the extension is missing or the path cannot run.
    """

    name = "native"

    def __init__(self, params: CKKSParams, *, threads: int = 1, path: str = "best") -> None:
        if native.core is None:
            raise BackendError(
                "the native evaluator was not built when this package was installed: install a "
                "C++ compiler and reinstall, or use the seal backend"
            )
        if threads < 1:
            raise BackendError(f"threads must be at least 1, got {threads}")
        self._params = params
        self._core: Any = native.core
        self._threads = threads
        self._engine = self._checked(lambda: self._core.Engine(params.n, key_moduli(params), path))
        self._keys: NativeKeys | None = None

    @property
    def params(self) -> CKKSParams:
        return self._params

    @property
    def path(self) -> str:
        """The arithmetic path that runs: ifma, avx2 or scalar."""
        return str(self._engine.path)

    # -- keys and bytes ------------------------------------------------------------

    def load_keys(self, keys: EvaluationKeys) -> NativeKeys:
        """Expand keys; raises MismatchError for other parameters, BackendError for bad residues."""
        if keys.params != self._params:
            raise MismatchError("these evaluation keys were made for other parameters")
        switch = {}
        if keys.relin is not None:
            switch[RELINEARIZATION] = self._switch(RELINEARIZATION, keys.relin)
        for step, key in keys.galois.items():
            element = galois_element(step, self._params.n)
            switch[element] = self._switch(element, key)
        b = keys.public_key.b
        public = np.stack([b, self._engine.expand(keys.public_key.seed)[: len(b)]])
        return NativeKeys(
            switch=switch,
            public=public,
            steps=frozenset(keys.steps),
            digest=keys.digest,
        )

    def _switch(self, element: int, key: Any) -> Any:
        return self._checked(lambda: self._engine.switch_key(element, key.b, list(key.seeds)))

    def with_keys(self, keys: NativeKeys) -> NativeBackend:
        """The same backend with a client's keys; cheap."""
        view = copy.copy(self)
        view._keys = keys
        return view

    def import_ciphertext(self, ciphertext: Ciphertext | SeededCiphertext) -> NativeCiphertext:
        """Raises BackendError for residues that are not below their primes."""
        if isinstance(ciphertext, SeededCiphertext):
            c0, seed = ciphertext.c0, ciphertext.seed
            handle = self._checked(lambda: self._engine.seeded(c0, seed))
        else:
            residues = ciphertext.residues
            handle = self._checked(lambda: self._engine.ciphertext(residues))
        return NativeCiphertext(handle, ciphertext.scale)

    def export_ciphertext(self, a: NativeCiphertext) -> Ciphertext:
        return Ciphertext(residues=a.handle.residues, scale=a.scale)

    # -- the protocol --------------------------------------------------------------

    def encode(self, values: FloatArray | float, *, level: int, scale: float) -> NativePlaintext:
        return NativePlaintext(self._encode(values, level, scale, hoisted=False), scale)

    def level(self, a: NativeCiphertext) -> int:
        return int(a.handle.level)

    def scale(self, a: NativeCiphertext) -> float:
        return a.scale

    def size(self, a: NativeCiphertext) -> int:
        return int(a.handle.size)

    def add(self, a: NativeCiphertext, b: NativeCiphertext) -> NativeCiphertext:
        check_addable((self.level(a), self.level(b)), (a.scale, b.scale))
        return NativeCiphertext(self._engine.add(a.handle, b.handle), a.scale)

    def add_plain(self, a: NativeCiphertext, p: NativePlaintext) -> NativeCiphertext:
        check_addable((self.level(a), p.handle.level), (a.scale, p.scale))
        return NativeCiphertext(self._engine.add_plain(a.handle, p.handle), a.scale)

    def multiply_plain(self, a: NativeCiphertext, p: NativePlaintext) -> NativeCiphertext:
        check_level((self.level(a), p.handle.level))
        return NativeCiphertext(self._engine.multiply_plain(a.handle, p.handle), a.scale * p.scale)

    def multiply(self, a: NativeCiphertext, b: NativeCiphertext) -> NativeCiphertext:
        check_level((self.level(a), self.level(b)))
        check_factors((self.size(a), self.size(b)))
        return NativeCiphertext(self._engine.multiply(a.handle, b.handle), a.scale * b.scale)

    def relinearize(self, a: NativeCiphertext) -> NativeCiphertext:
        check_product(self.size(a))
        key = self._loaded().switch.get(RELINEARIZATION)
        if key is None:
            raise BackendError("no relinearisation key was loaded")
        handle = self._checked(lambda: self._engine.relinearize(a.handle, key, self._threads))
        return NativeCiphertext(handle, a.scale)

    def rotate(self, a: NativeCiphertext, step: int) -> NativeCiphertext:
        keys = self._loaded()
        check_rotatable(step, self._params.slots, self.size(a), keys.steps)
        key = keys.switch[galois_element(step, self._params.n)]
        handle = self._checked(lambda: self._engine.rotate(a.handle, key, self._threads))
        return NativeCiphertext(handle, a.scale)

    def rescale(self, a: NativeCiphertext) -> NativeCiphertext:
        level = self.level(a)
        check_rescalable(level)
        handle = self._engine.rescale(a.handle, self._threads)
        return NativeCiphertext(handle, a.scale / self._params.primes[level])

    def drop_to(self, a: NativeCiphertext, level: int) -> NativeCiphertext:
        current = self.level(a)
        check_droppable(current, level)
        if current == level:
            return a
        return NativeCiphertext(self._engine.drop(a.handle, level), a.scale)

    def real_part(self, a: NativeCiphertext) -> NativeCiphertext:
        keys = self._loaded()
        check_conjugable(self.size(a), keys.steps)
        key = keys.switch[galois_element(CONJUGATION_STEP, self._params.n)]
        conjugate = self._checked(lambda: self._engine.rotate(a.handle, key, self._threads))
        return NativeCiphertext(self._engine.add(a.handle, conjugate), 2 * a.scale)

    def draw(self, count: int) -> FloatArray:
        return unit(count)

    def flood(self, a: NativeCiphertext, bound: int, *, period: int) -> NativeCiphertext:
        drawn = uniform(self._params.n, bound, stride=self._params.slots // period)
        handle = self._checked(lambda: self._engine.add_integers(a.handle, drawn))
        return NativeCiphertext(handle, a.scale)

    def encrypt_zero(self, *, level: int, scale: float) -> NativeCiphertext:
        keys, n = self._loaded(), self._params.n
        if level + 2 > keys.public.shape[1]:
            raise BackendError(f"the public key was cut below level {level}")
        public = np.ascontiguousarray(keys.public[:, : level + 2])
        small = np.stack([ternary(n), centred_binomial(n), centred_binomial(n)])
        handle = self._checked(lambda: self._engine.encrypt_zero(level, public, small))
        return NativeCiphertext(handle, scale)

    def prepare(self, linear: LinearMap) -> _Sums | _Rotations:
        if linear.scalars and not linear.folds:
            return self._sums(linear)
        hoisted = linear.counts.babies > 0
        n = self._params.n

        def group(g: Group) -> tuple[list[tuple[int, int, Any]], int]:
            products = [
                (
                    p.source,
                    galois_element(p.rotation, n) if p.rotation else 1,
                    self._encode(p.values(), linear.level, linear.scale, hoisted=hoisted),
                )
                for p in g.products
            ]
            return products, galois_element(g.then, n) if g.then else 1

        targets = [[group(g) for g in groups] for groups in linear.targets]
        folds = [galois_element(fold, n) for fold in linear.folds]
        handle = self._checked(lambda: self._core.Transform(linear.level, targets, folds))
        return _Rotations(linear, handle)

    def _sums(self, linear: LinearMap) -> _Sums:
        starts, columns, values = [0], [], []
        for groups in linear.targets:
            for g in groups:
                for p in g.products:
                    columns.append(p.source)
                    values.append(p.values())
            starts.append(len(values))
        scaled = np.rint(np.asarray(values, dtype=np.float64) * linear.scale)
        if not np.abs(scaled).max(initial=0.0) < 2.0**62:
            raise BackendError("cannot encode: value times scale exceeds 62 bits")
        return _Sums(
            linear,
            np.array(starts, dtype=np.int64),
            np.array(columns, dtype=np.int32),
            scaled.astype(np.int64),
        )

    def apply(
        self, prepared: _Sums | _Rotations, sources: Sequence[NativeCiphertext]
    ) -> list[NativeCiphertext]:
        linear = prepared.linear
        for source in sources:
            check_level((self.level(source), linear.level))
            check_addable((0, 0), (sources[0].scale, source.scale))
        product = sources[0].scale * linear.scale
        scale = product / self._params.primes[linear.level]
        handles = [source.handle for source in sources]
        if isinstance(prepared, _Rotations):
            keys = self._loaded()
            results = self._checked(
                lambda: self._engine.transform(prepared.handle, handles, keys.switch, self._threads)
            )
            return [NativeCiphertext(handle, scale) for handle in results]
        sums = self._checked(
            lambda: self._engine.combine(
                prepared.starts, prepared.columns, prepared.values, handles, self._threads
            )
        )

        def finish(a: NativeCiphertext) -> NativeCiphertext:
            return self.rescale(self.relinearize(a) if self.size(a) > 2 else a)

        return self.each(finish, [NativeCiphertext(handle, product) for handle in sums])

    def each(
        self,
        operation: Callable[[NativeCiphertext], NativeCiphertext],
        items: Sequence[NativeCiphertext],
    ) -> list[NativeCiphertext]:
        if self._threads == 1 or len(items) < self._threads:
            return [operation(item) for item in items]
        # One ciphertext per thread beats one row per thread: nothing is shared but the lock.
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(operation, items))

    def _encode(
        self, values: FloatArray | float, level: int, scale: float, *, hoisted: bool
    ) -> Any:
        if not isinstance(values, float):
            check_slots(values, self._params.slots)
        coefficients = encode_slots(values, self._params.n, scale)
        bits = sum(q.bit_length() for q in self._params.primes[: level + 1])
        if float(np.abs(coefficients).max()) >= 2.0 ** (bits - 1):
            raise BackendError(
                f"cannot encode at level {level}: value times scale exceeds the modulus"
            )
        return self._checked(lambda: self._engine.plaintext(coefficients, level, hoisted))

    def _loaded(self) -> NativeKeys:
        if self._keys is None:
            raise BackendError("this operation needs evaluation keys: use with_keys")
        return self._keys

    @staticmethod
    def _checked(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (ValueError, TypeError) as error:
            raise BackendError(f"the native evaluator refuses: {error}") from error
