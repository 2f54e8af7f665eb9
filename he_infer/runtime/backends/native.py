"""Our own evaluator: hoisted rotations, fused linear maps, several threads, no lock held.

It computes on public data only, and needs no SEAL: ciphertexts and keys come as residues and
seeds (wire), are checked by the extension and live in its memory. Elementary operations give
SEAL's result bit for bit; linear maps share digits and divisions, so they agree with SEAL's
within the noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from he_infer import native
from he_infer.errors import BackendError
from he_infer.keys.evaluation import CONJUGATION_STEP, EvaluationKeys, galois_element
from he_infer.params import CKKSParams
from he_infer.plan.ir import FloatArray
from he_infer.runtime.backends.checked import Tracked
from he_infer.runtime.backends.keyed import KeyedBackend
from he_infer.runtime.backends.linear import Group, LinearMap
from he_infer.runtime.costs import CostModel
from he_infer.runtime.encoding import encode_slots
from he_infer.runtime.sampling import centred_binomial, ternary, uniform
from he_infer.wire import Ciphertext, SeededCiphertext
from he_infer.wire.types import SeededKeySwitchKey, key_moduli

RELINEARIZATION = 1  # the Galois element that stands for the relinearisation key


Native: TypeAlias = Tracked[Any]  # the value is a handle: residues in the extension's memory


@dataclass(frozen=True, slots=True, eq=False)
class NativeKeys:
    """A client's keys, expanded; ``switch`` by Galois element."""

    switch: Mapping[int, Any]
    public: NDArray[np.uint64]  # (2, l + 2, n), b and a; see SeededPublicKey


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


class NativeBackend(KeyedBackend[Any, Any]):
    """CKKS on the extension, for one parameter set.

    ``threads``: for each call; ``path``: of ``native.paths()``, or "best". Raises BackendError
    where the extension is missing or the path cannot run.
    """

    name: ClassVar = "native"
    costs: ClassVar = CostModel()
    packed: ClassVar = True

    def __init__(self, params: CKKSParams, *, threads: int = 1, path: str = "best") -> None:
        super().__init__(params)
        if threads < 1:
            raise BackendError(f"threads must be at least 1, got {threads}")
        self._core: Any = native.core
        self._threads = threads
        self._engine = self._checked(lambda: self._core.Engine(params.n, key_moduli(params), path))

    @classmethod
    def missing(cls) -> str:
        if native.core is not None:
            return ""
        return "the native one was not built: install a C++ compiler and reinstall"

    @classmethod
    def paths(cls) -> tuple[str, ...]:
        return native.paths()

    @property
    def path(self) -> str:
        """The arithmetic path that runs: ifma, avx2 or scalar."""
        return str(self._engine.path)

    # -- keys and bytes ------------------------------------------------------------

    def export_ciphertext(self, a: Native) -> Ciphertext:
        return Ciphertext(residues=a.value.residues, scale=a.scale)

    def _load_keys(self, keys: EvaluationKeys) -> NativeKeys:
        n = self._params.n
        wanted = {galois_element(step, n): key for step, key in keys.galois.items()}
        if keys.relin is not None:
            wanted[RELINEARIZATION] = keys.relin
        b = keys.public_key.b
        return NativeKeys(
            switch={element: self._expand(element, key) for element, key in wanted.items()},
            public=np.stack([b, self._engine.expand(keys.public_key.seed)[: len(b)]]),
        )

    def _expand(self, element: int, key: SeededKeySwitchKey) -> Any:
        return self._checked(lambda: self._engine.switch_key(element, key.b, list(key.seeds)))

    def _import(self, ciphertext: Ciphertext | SeededCiphertext) -> Any:
        if isinstance(ciphertext, SeededCiphertext):
            return self._checked(lambda: self._engine.seeded(ciphertext.c0, ciphertext.seed))
        return self._checked(lambda: self._engine.ciphertext(ciphertext.residues))

    # -- elementary operations -----------------------------------------------------

    def _add(self, a: Native, b: Native) -> Any:
        return self._engine.add(a.value, b.value)

    def _add_plain(self, a: Native, p: Native) -> Any:
        return self._engine.add_plain(a.value, p.value)

    def _multiply_plain(self, a: Native, p: Native) -> Any:
        return self._engine.multiply_plain(a.value, p.value)

    def _multiply(self, a: Native, b: Native) -> Any:
        return self._engine.multiply(a.value, b.value)

    def _relinearize(self, a: Native) -> Any:
        key = self._keys.switch.get(RELINEARIZATION)
        if key is None:
            raise BackendError("no relinearisation key was loaded")
        return self._checked(lambda: self._engine.relinearize(a.value, key, self._threads))

    def _rotate(self, a: Native, step: int) -> Any:
        key = self._keys.switch[galois_element(step, self._params.n)]
        return self._checked(lambda: self._engine.rotate(a.value, key, self._threads))

    def _rescale(self, a: Native) -> Any:
        return self._engine.rescale(a.value, self._threads)

    def _drop(self, a: Native, level: int) -> Any:
        return self._engine.drop(a.value, level)

    def _add_conjugate(self, a: Native) -> Any:
        return self._engine.add(a.value, self._rotate(a, CONJUGATION_STEP))

    def _flood(self, a: Native, bound: int, period: int) -> Any:
        drawn = uniform(self._params.n, bound, stride=self._params.slots // period)
        return self._checked(lambda: self._engine.add_integers(a.value, drawn))

    def _encrypt_zero(self, level: int, scale: float) -> Any:
        keys, n = self._keys, self._params.n
        if level + 2 > keys.public.shape[1]:
            raise BackendError(f"the public key was cut below level {level}")
        public = np.ascontiguousarray(keys.public[:, : level + 2])
        small = np.stack([ternary(n), centred_binomial(n), centred_binomial(n)])
        return self._checked(lambda: self._engine.encrypt_zero(level, public, small))

    # -- linear maps ---------------------------------------------------------------

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

    def apply(self, prepared: _Sums | _Rotations, sources: Sequence[Native]) -> list[Native]:
        linear = prepared.linear
        self.check_sources(linear, sources)
        product = sources[0].scale * linear.scale
        handles = [source.value for source in sources]
        if isinstance(prepared, _Rotations):
            keys = self._keys.switch
            results = self._checked(
                lambda: self._engine.transform(prepared.handle, handles, keys, self._threads)
            )
            scale = product / self._params.primes[linear.level]
            return [Tracked(handle, linear.level - 1, scale) for handle in results]
        sums = self._checked(
            lambda: self._engine.combine(
                prepared.starts, prepared.columns, prepared.values, handles, self._threads
            )
        )

        def finish(a: Native) -> Native:
            return self.rescale(self.relinearize(a) if a.size > 2 else a)

        return self.each(finish, [Tracked(h, linear.level, product, h.size) for h in sums])

    def each(self, operation: Callable[[Native], Native], items: Sequence[Native]) -> list[Native]:
        if self._threads == 1 or len(items) < self._threads:
            return super().each(operation, items)
        # One ciphertext per thread beats one row per thread: nothing is shared but the lock.
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(operation, items))

    @property
    def _keys(self) -> NativeKeys:
        keys: NativeKeys = self._client_keys().held
        return keys

    def _encode(
        self, values: FloatArray | float, level: int, scale: float, *, hoisted: bool = False
    ) -> Any:
        coefficients = encode_slots(values, self._params.n, scale)
        bits = sum(q.bit_length() for q in self._params.primes[: level + 1])
        if float(np.abs(coefficients).max()) >= 2.0 ** (bits - 1):
            raise BackendError(
                f"cannot encode at level {level}: value times scale exceeds the modulus"
            )
        return self._checked(lambda: self._engine.plaintext(coefficients, level, hoisted))

    @staticmethod
    def _checked(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (ValueError, TypeError) as error:
            raise BackendError(f"the native evaluator refuses: {error}") from error
