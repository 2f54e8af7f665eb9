"""The real thing: TenSEAL's SEAL through ``tenseal.sealapi``.

One backend per parameter set holds SEAL's context, encoder and evaluator, and its views use one
client's keys each. SEAL holds Python's interpreter lock throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from tenseal import sealapi

from he_infer.errors import BackendError
from he_infer.keys import seal_bytes
from he_infer.keys.evaluation import EvaluationKeys
from he_infer.params import CKKSParams
from he_infer.plan.ir import FloatArray
from he_infer.runtime.backends.checked import Tracked
from he_infer.runtime.backends.keyed import KeyedBackend
from he_infer.runtime.costs import CostModel
from he_infer.runtime.encoding import embed
from he_infer.runtime.sampling import uniform
from he_infer.wire import Ciphertext, SeededCiphertext

Seal: TypeAlias = Tracked[Any]  # the value is a ``sealapi.Ciphertext`` or ``Plaintext``


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SealKeys:
    """A client's evaluation keys as SEAL objects."""

    galois: Any
    relin: Any  # None where no product needs it
    encryptor: Any


class SealBackend(KeyedBackend[Any, Any]):
    """CKKS on SEAL, on one thread whatever ``threads`` says."""

    name: ClassVar = "seal"
    costs: ClassVar = CostModel(
        transform_us=105.0,
        word_ns=4.4,
        plain_word_ns=0.0,
        number_word_ns=0.0,
        key_word_ns=0.0,
        add_ns=1.0,
        ciphertext_ms=5.0,
        hoisting=False,
    )
    packed: ClassVar = False

    def __init__(self, params: CKKSParams, *, threads: int = 1) -> None:
        super().__init__(params)
        self._context = seal_bytes.seal_context(params)
        self._encoder = sealapi.CKKSEncoder(self._context)
        self._evaluator = sealapi.Evaluator(self._context)
        levels = range(params.max_level + 1)
        self._ids = [seal_bytes.parms_id(self._context, level) for level in levels]

    # -- keys and bytes ------------------------------------------------------------

    def export_ciphertext(self, a: Seal) -> Ciphertext:
        return seal_bytes.dump_ciphertext(self._params, a.value)

    def _load_keys(self, keys: EvaluationKeys) -> SealKeys:
        """About 0.1 s and 70 MB for 13 rotations at N = 8192, L = 6."""
        public = seal_bytes.load_public_key(self._context, self._params, keys.public_key)
        return SealKeys(
            galois=seal_bytes.load_galois_keys(self._context, self._params, keys.galois),
            relin=None
            if keys.relin is None
            else seal_bytes.load_relin_keys(self._context, self._params, keys.relin),
            encryptor=sealapi.Encryptor(self._context, public),
        )

    def _import(self, ciphertext: Ciphertext | SeededCiphertext) -> Any:
        return seal_bytes.load_ciphertext(self._context, self._params, ciphertext)

    # -- elementary operations -----------------------------------------------------

    def _encode(self, values: FloatArray | float, level: int, scale: float) -> Any:
        plain = sealapi.Plaintext()
        numbers = values if isinstance(values, float) else values.tolist()
        try:
            self._encoder.encode(numbers, self._ids[level], scale, plain)
        except (ValueError, RuntimeError) as error:
            raise BackendError(
                f"cannot encode at level {level}: value times scale exceeds the modulus"
            ) from error
        if plain.is_zero():
            # Weights that round to nothing; SEAL refuses their product because it would be
            # transparent. One unit in every slot is below the rounding of any other encoding.
            self._encoder.encode(1.0 / scale, self._ids[level], scale, plain)
        return plain

    def _add(self, a: Seal, b: Seal) -> Any:
        return _result(self._evaluator.add, a.value, b.value)

    def _add_plain(self, a: Seal, p: Seal) -> Any:
        return _result(self._evaluator.add_plain, a.value, p.value)

    def _multiply_plain(self, a: Seal, p: Seal) -> Any:
        return _result(self._evaluator.multiply_plain, a.value, p.value)

    def _multiply(self, a: Seal, b: Seal) -> Any:
        if a is b:
            return _result(self._evaluator.square, a.value)
        return _result(self._evaluator.multiply, a.value, b.value)

    def _relinearize(self, a: Seal) -> Any:
        key = self._keys.relin
        if key is None:
            raise BackendError("no relinearisation key was loaded")
        return _result(self._evaluator.relinearize, a.value, key)

    def _rotate(self, a: Seal, step: int) -> Any:
        return _result(self._evaluator.rotate_vector, a.value, step, self._keys.galois)

    def _rescale(self, a: Seal) -> Any:
        return _result(self._evaluator.rescale_to_next, a.value)

    def _drop(self, a: Seal, level: int) -> Any:
        return _result(self._evaluator.mod_switch_to, a.value, self._ids[level])

    def _add_conjugate(self, a: Seal) -> Any:
        conjugate = _result(self._evaluator.complex_conjugate, a.value, self._keys.galois)
        total = _result(self._evaluator.add, a.value, conjugate)
        total.scale = 2 * a.scale
        return total

    def _flood(self, a: Seal, bound: int, period: int) -> Any:
        n, plain = self._params.n, sealapi.Plaintext()
        drawn = embed(uniform(n, bound, stride=n // 2 // period), n) / a.scale
        self._encoder.encode(drawn.tolist(), self._ids[a.level], a.scale, plain)
        return _result(self._evaluator.add_plain, a.value, plain)

    def _encrypt_zero(self, level: int, scale: float) -> Any:
        zero = sealapi.Ciphertext()
        self._keys.encryptor.encrypt_zero(self._ids[level], zero)
        zero.scale = scale
        return zero

    @property
    def _keys(self) -> SealKeys:
        keys: SealKeys = self._client_keys().held
        return keys


def _result(operation: Callable[..., None], *operands: Any) -> Any:
    """What one of SEAL's operations writes to the ciphertext that it is given last."""
    out = sealapi.Ciphertext()
    operation(*operands, out)
    return out
