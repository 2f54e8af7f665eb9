"""Keys: what stays with the client and what may be uploaded, as two unrelated types.

:class:`SecretKeys` encrypts, decrypts and makes evaluation keys; it is the only type that holds
a secret and has no bytes form except the encrypted key file. :class:`EvaluationKeys` is what a
server needs to compute; uploading code takes that type and so cannot be handed a secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from he_infer import keyfile, seal_bytes
from he_infer.errors import InputError, KeyFileError, ParameterError, WireError
from he_infer.params import CKKSParams
from he_infer.progress import Progress
from he_infer.wire.envelope import Expected, canonical_steps
from he_infer.wire.frames import read_envelope, write_envelope
from he_infer.wire.residues import pack_residues, unpack_residues
from he_infer.wire.types import (
    Ciphertext,
    SeededCiphertext,
    SeededKeySwitchKey,
    SeededPublicKey,
    key_moduli,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationKeys:
    """Public material for one client: public key, relinearisation key, one key per rotation.

    ``galois`` maps canonical left-rotation steps to keys (0 is conjugation). Raises WireError
    for residues or steps that ``params`` do not allow.
    """

    params: CKKSParams
    public_key: SeededPublicKey = field(repr=False)
    relin: SeededKeySwitchKey = field(repr=False)
    galois: Mapping[int, SeededKeySwitchKey] = field(repr=False)
    _digest: list[str] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if tuple(sorted(self.galois)) != canonical_steps(list(self.galois), self.params):
            raise WireError(f"rotation steps must lie in 0…{self.params.slots - 1}")
        ordered = {step: self.galois[step] for step in sorted(self.galois)}
        object.__setattr__(self, "galois", MappingProxyType(ordered))
        self.public_key.check(self.params)
        for key in (self.relin, *self.galois.values()):
            key.check(self.params)

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(self.galois)

    @property
    def digest(self) -> str:
        """SHA-256 of :meth:`to_bytes`, in hexadecimal."""
        if not self._digest:
            self._digest.append(hashlib.sha256(self.to_bytes()).hexdigest())
        return self._digest[0]

    def to_bytes(self) -> bytes:
        """The one envelope that holds these keys; equal keys give equal bytes."""
        expected = Expected.evaluation_keys(self.params, steps=self.steps)
        return write_envelope([self.public_key, self.relin, *self.galois.values()], expected)

    @classmethod
    def from_bytes(cls, data: bytes, *, params: CKKSParams, steps: Sequence[int]) -> Self:
        """Parse keys for exactly ``steps``; raises WireError and its subclasses."""
        expected = Expected.evaluation_keys(params, steps=steps)
        public_key, relin, *rotations = read_envelope(
            data, expected, limit_bytes=max(expected.total_bytes, len(data))
        )
        assert isinstance(public_key, SeededPublicKey)
        assert isinstance(relin, SeededKeySwitchKey)
        galois = {
            step: key
            for step, key in zip(expected.steps, rotations, strict=True)
            if isinstance(key, SeededKeySwitchKey)
        }
        keys = cls(params=params, public_key=public_key, relin=relin, galois=galois)
        # The format is canonical, so the bytes that came are the bytes we would write.
        keys._digest.append(hashlib.sha256(data).hexdigest())
        return keys


class SecretKeys:
    """A client's secret key with all that needs it: encrypt, decrypt, make evaluation keys.

    Made by :meth:`generate` or :meth:`load`. Not picklable, not copyable, no secret in repr.
    """

    __slots__ = ("_context", "_decryptor", "_encoder", "_encryptor", "_params", "_secret")

    def __init__(self, params: CKKSParams, context: sealapi.SEALContext, secret: Any) -> None:
        self._params = params
        self._context = context
        self._secret = secret
        self._encoder = sealapi.CKKSEncoder(context)
        self._encryptor = sealapi.Encryptor(context, secret)
        self._decryptor = sealapi.Decryptor(context, secret)

    @classmethod
    def generate(cls, params: CKKSParams, *, progress: Progress | None = None) -> Self:
        """Draw a fresh ternary secret with SEAL's generator, seeded by the operating system."""
        context = seal_bytes.seal_context(params)
        keys = cls(params, context, sealapi.KeyGenerator(context).secret_key())
        if progress is not None:
            progress("secret key", 1, 1)
        return keys

    @property
    def params(self) -> CKKSParams:
        return self._params

    def __repr__(self) -> str:
        return f"SecretKeys(params={self._params.digest[:12]}, secret=<hidden>)"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("secret keys are not picklable: save them to a key file")

    def evaluation_keys(
        self, steps: Sequence[int], *, progress: Progress | None = None
    ) -> EvaluationKeys:
        """Make the public key, the relinearisation key and exactly one key per step in ``steps``.

        Steps are left rotations (negative: right; 0: conjugation). Takes about 60 ms a key at
        N = 8192 with six data primes. Raises ParameterError for a step out of range.
        """
        try:
            wanted = canonical_steps(steps, self._params)
        except WireError as error:
            raise ParameterError(str(error)) from error
        total = 2 + len(wanted)
        generator = sealapi.KeyGenerator(self._context, self._secret)
        # A public key is an encryption of zero modulo all key moduli; made this way it is seeded.
        zero = self._encryptor.encrypt_zero_symmetric(self._context.key_parms_id())
        public_key = seal_bytes.dump_public_key(self._params, zero)
        _report(progress, 1, total)
        made = seal_bytes.dump_key_switch_keys(self._params, generator.create_relin_keys())
        relin = made[0]
        _report(progress, 2, total)
        galois: dict[int, SeededKeySwitchKey] = {}
        for step in wanted:
            element = seal_bytes.galois_element(step, self._params.n)
            # One key a call: SEAL would otherwise hold, copy and compress all of them at once.
            made = seal_bytes.dump_key_switch_keys(
                self._params, generator.create_galois_keys([element])
            )
            galois[step] = made[(element - 1) // 2]
            _report(progress, 2 + len(galois), total)
        return EvaluationKeys(
            params=self._params, public_key=public_key, relin=relin, galois=galois
        )

    def encrypt(self, slots: NDArray[np.float64], scale: float) -> list[SeededCiphertext]:
        """Encrypt (count, slots) real values at the highest level, symmetric and seeded.

        Raises InputError for another shape, values that are not finite, or values that do not
        fit the modulus at this ``scale``.
        """
        values = np.asarray(slots, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != self._params.slots:
            raise InputError(
                f"expected values of shape (count, {self._params.slots}), got {values.shape}"
            )
        if not np.isfinite(values).all():
            raise InputError("some values are not finite")
        identity = seal_bytes.parms_id(self._context, self._params.max_level)
        found = []
        for row in values:
            plaintext = sealapi.Plaintext()
            try:
                self._encoder.encode(row.tolist(), identity, float(scale), plaintext)
            except (ValueError, RuntimeError) as error:
                raise InputError(
                    "values times scale do not fit the modulus: lower the scale or the values"
                ) from error
            fresh = self._encryptor.encrypt_symmetric(plaintext)
            found.append(seal_bytes.dump_seeded_ciphertext(self._params, fresh))
        return found

    def decrypt(self, ciphertext: Ciphertext) -> NDArray[np.complex128]:
        """The complex slots (slots,) of a ciphertext; raises WireError if it is not a valid one.

        The result carries noise that depends on the secret key: round it before it is shared
        (Li and Micciancio, ePrint 2020/1533).
        """
        if not isinstance(ciphertext, Ciphertext):
            raise WireError(f"expected a Ciphertext, got a {type(ciphertext).__name__}")
        sealed = seal_bytes.load_ciphertext(self._context, self._params, ciphertext)
        plaintext = sealapi.Plaintext()
        self._decryptor.decrypt(sealed, plaintext)
        return np.array(self._encoder.decode_complex(plaintext), dtype=np.complex128)

    def save(
        self,
        path: str | Path,
        passphrase: str,
        *,
        overwrite: bool = False,
        cost: keyfile.PassphraseCost | None = None,
    ) -> None:
        """Write an encrypted key file, readable by its owner only; raises KeyFileError.

        ``cost`` None takes the recommended passphrase cost.
        """
        residues = seal_bytes.dump_secret_key(self._params, self._secret)
        packed = pack_residues(residues[None], key_moduli(self._params))
        chosen = keyfile.recommended_cost() if cost is None else cost
        contents = keyfile.Contents(params=self._params, secret=packed)
        keyfile.write(Path(path), contents, passphrase, cost=chosen, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path, passphrase: str) -> Self:
        """Open a key file; raises KeyFileError with the remedy if it cannot be opened."""
        contents = keyfile.read(Path(path), passphrase)
        moduli = key_moduli(contents.params)
        try:
            residues = unpack_residues(contents.secret, 1, moduli, contents.params.n)[0]
        except WireError as error:
            raise KeyFileError("the key file does not hold a key for its parameters") from error
        context = seal_bytes.seal_context(contents.params)
        secret = seal_bytes.load_secret_key(context, contents.params, residues)
        return cls(contents.params, context, secret)


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress("evaluation keys", done, total)
