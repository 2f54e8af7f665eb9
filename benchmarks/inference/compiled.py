"""This package as an Engine: a plan encrypted, with simulated noise, or in plain arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.inference.engine import Engine, Facts
from he_infer.errors import BackendError
from he_infer.keys.evaluation import EvaluationKeys
from he_infer.keys.secret import SecretKeys
from he_infer.plan.client_spec import expected_query, expected_reply
from he_infer.plan.plan import Plan
from he_infer.runtime.backends.base import LoadedKeys
from he_infer.runtime.backends.choose import (
    ENCRYPTED,
    backend_class,
    clear_backend,
    encrypted_backend,
)
from he_infer.runtime.backends.slotwise import Slots, SlotwiseBackend
from he_infer.runtime.executor import Executor, count_costs, run_on
from he_infer.wire import Ciphertext, Expected, SeededCiphertext
from he_infer.wire.envelope import NO_DIGEST


class _Compiled:
    """What both engines share: they answer for one plan, with envelopes of known sizes."""

    def __init__(self, plan: Plan, backend: str, *, predicted_ms: float | None = None) -> None:
        self.plan, self.batch = plan, plan.batch
        self.facts = Facts(
            engine="he-infer",
            backend=backend,
            n=plan.params.n,
            log_qp=plan.params.log_qp,
            predicted_ms=predicted_ms,
        )
        self.key_bytes = Expected.evaluation_keys(plan.params, plan.key_levels).total_bytes

    def upload_bytes(self, query: object) -> int:
        return expected_query(self.plan.client_spec, NO_DIGEST).total_bytes

    def download_bytes(self, reply: object) -> int:
        return expected_reply(self.plan.client_spec, NO_DIGEST).total_bytes


class SlotwiseEngine(_Compiled):
    """Values in slots without cryptography: exact, or with the noise that CKKS adds."""

    def __init__(self, plan: Plan, backend: SlotwiseBackend, *, backend_name: str) -> None:
        super().__init__(plan, backend_name)
        self._slotwise = backend

    def keygen(self) -> int:
        """No keys are made; the size is that of the real ones."""
        return self.key_bytes

    def prepare(self) -> None:
        """Nothing is encoded beforehand."""

    def encrypt(self, records: NDArray[np.float32]) -> list[Slots]:
        spec = self.plan.client_spec
        slots = spec.pack(records)
        return [self._slotwise.encrypt(row, scale=spec.input_scale) for row in slots]

    def evaluate(self, query: list[Slots]) -> list[Slots]:
        return run_on(self._slotwise, self.plan, query)

    def decrypt(self, reply: list[Slots], count: int) -> NDArray[np.float64]:
        values = np.stack([self._slotwise.decrypt(c).real for c in reply])
        return self.plan.client_spec.unpack(values, count)


class EncryptedEngine(_Compiled):
    """The real thing, in one process and without the network.

    ``encrypt`` ends with seeded residues and ``evaluate`` begins with them, as on the wire.
    """

    def __init__(self, plan: Plan, *, backend: str, threads: int) -> None:
        predicted_ms = None
        if threads == 1:  # the model knows one
            predicted_ms = count_costs(plan, backend_class(backend).costs).milliseconds
        super().__init__(plan, backend, predicted_ms=predicted_ms)
        self._threads = threads
        self._secret: SecretKeys | None = None
        self._public: EvaluationKeys | None = None
        self._loaded: LoadedKeys | None = None
        self._executor: Executor | None = None

    def keygen(self) -> int:
        self._secret = SecretKeys.generate(self.plan.params)
        self._public = self._secret.evaluation_keys(self.plan.key_levels)
        return len(self._public.to_bytes())

    def prepare(self) -> None:
        if self._public is None:
            raise BackendError("no keys: call keygen() first")
        params, name = self.plan.params, self.facts.backend
        backend = encrypted_backend(params, name, threads=self._threads)
        self._executor = Executor(self.plan, backend)
        self._loaded = self._executor.load_keys(self._public)

    def encrypt(self, records: NDArray[np.float32]) -> list[SeededCiphertext]:
        spec = self.plan.client_spec
        return self._key_holder().encrypt(spec.pack(records), spec.input_scale)

    def evaluate(self, query: Sequence[SeededCiphertext]) -> list[Ciphertext]:
        if self._executor is None or self._loaded is None:
            raise BackendError("no keys are loaded: call prepare() first")
        return self._executor.run(query, self._loaded)

    def decrypt(self, reply: list[Ciphertext], count: int) -> NDArray[np.float64]:
        values = np.stack([self._key_holder().decrypt(c).real for c in reply])
        return self.plan.client_spec.unpack(values, count)

    def _key_holder(self) -> SecretKeys:
        if self._secret is None:
            raise BackendError("no keys: call keygen() first")
        return self._secret


def compiled_engine(
    plan: Plan, backend: str, rng: np.random.Generator, *, threads: int = 1
) -> Engine[Any, Any]:
    """The engine for a backend's name; raises BackendError for an unknown one."""
    if backend in ENCRYPTED:
        return EncryptedEngine(plan, backend=backend, threads=threads)
    clear = clear_backend(plan.params, backend, rng, steps=plan.rotation_steps)
    return SlotwiseEngine(plan, clear, backend_name=backend)
