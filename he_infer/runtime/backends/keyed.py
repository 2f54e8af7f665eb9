"""What backends on real ciphertexts share: a client's keys are loaded once, then used by views."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, Self

from he_infer.errors import BackendError, MismatchError
from he_infer.keys.evaluation import EvaluationKeys
from he_infer.params import CKKSParams
from he_infer.plan.ir import FloatArray
from he_infer.runtime.backends.base import LoadedKeys
from he_infer.runtime.backends.checked import CheckedBackend, E, Tracked, V
from he_infer.runtime.sampling import unit
from he_infer.wire import Ciphertext, SeededCiphertext


class KeyedBackend(CheckedBackend[V, E]):
    """Implements the keys of ``EncryptedBackend``; a view shares all but the keys."""

    def __init__(self, params: CKKSParams) -> None:
        super().__init__(params)
        if reason := self.missing():
            raise BackendError(f"this backend cannot run here: {reason}")
        self._loaded: LoadedKeys | None = None

    @classmethod
    def missing(cls) -> str:
        return ""

    @classmethod
    def paths(cls) -> tuple[str, ...]:
        return ()

    def load_keys(self, keys: EvaluationKeys) -> LoadedKeys:
        """Raises MismatchError for other parameters, WireError or BackendError for bad residues."""
        if keys.params != self._params:
            raise MismatchError("these evaluation keys were made for other parameters")
        return LoadedKeys(self._load_keys(keys), frozenset(keys.steps))

    def with_keys(self, keys: LoadedKeys) -> Self:
        """The same backend with a client's keys; cheap."""
        view = copy.copy(self)
        view._loaded = keys
        return view

    def import_ciphertext(self, ciphertext: Ciphertext | SeededCiphertext) -> Tracked[V]:
        """Raises WireError or BackendError for residues that are not below their primes."""
        size = 2 if isinstance(ciphertext, SeededCiphertext) else ciphertext.size
        value = self._import(ciphertext)
        return Tracked(value, ciphertext.level, ciphertext.scale, size)

    def draw(self, count: int) -> FloatArray:
        return unit(count)

    def _key_steps(self) -> frozenset[int]:
        return self._client_keys().steps

    def _client_keys(self) -> LoadedKeys:
        if self._loaded is None:
            raise BackendError("this operation needs evaluation keys: use with_keys")
        return self._loaded

    @abstractmethod
    def _load_keys(self, keys: EvaluationKeys) -> Any: ...
    @abstractmethod
    def _import(self, ciphertext: Ciphertext | SeededCiphertext) -> V: ...
