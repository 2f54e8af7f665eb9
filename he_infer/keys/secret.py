"""Keys: what stays with the client and what may be uploaded, as two unrelated types.

:class:`SecretKeys` encrypts, decrypts and makes evaluation keys; it is the only type that holds
a secret and has no bytes form except the encrypted key file. :class:`EvaluationKeys` is what a
server needs to compute; uploading code takes that type and so cannot be handed a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from he_infer.errors import InputError, KeyFileError, ParameterError, WireError
from he_infer.keys import file as keyfile
from he_infer.keys import seal_bytes
from he_infer.keys.evaluation import EvaluationKeys, galois_element
from he_infer.params import CKKSParams
from he_infer.progress import Progress
from he_infer.wire.key_levels import KeyLevels
from he_infer.wire.residues import pack_residues, unpack_residues
from he_infer.wire.types import (
    Ciphertext,
    SeededCiphertext,
    SeededKeySwitchKey,
    key_moduli,
)


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
        self, wanted: KeyLevels | Sequence[int], *, progress: Progress | None = None
    ) -> EvaluationKeys:
        """Make exactly the keys listed, each cut to its level; a plan lists its ``key_levels``.

        A plain list of steps (left rotations; negative: right; 0: conjugation) stands for uncut
        keys with a relinearisation key. Takes about 60 ms a key at N = 8192 with six data
        primes. Raises ParameterError for a step or level out of range.
        """
        try:
            if not isinstance(wanted, KeyLevels):
                wanted = KeyLevels.full(self._params, wanted)
            wanted.check(self._params)
        except WireError as error:
            raise ParameterError(str(error)) from error
        total = 1 + len(wanted.switches)
        generator = sealapi.KeyGenerator(self._context, self._secret)
        # A public key is an encryption of zero modulo all key moduli; made this way it is seeded.
        zero = self._encryptor.encrypt_zero_symmetric(self._context.key_parms_id())
        public_key = seal_bytes.dump_public_key(self._params, zero).cut(wanted.public)
        _report(progress, 1, total)
        relin = None
        if wanted.relin is not None:
            made = seal_bytes.dump_key_switch_keys(self._params, generator.create_relin_keys())
            relin = made[0].cut(wanted.relin)
            _report(progress, 2, total)
        galois: dict[int, SeededKeySwitchKey] = {}
        for step, level in wanted.rotations:
            element = galois_element(step, self._params.n)
            # One key a call: SEAL would otherwise hold, copy and compress all of them at once.
            made = seal_bytes.dump_key_switch_keys(
                self._params, generator.create_galois_keys([element])
            )
            galois[step] = made[(element - 1) // 2].cut(level)
            _report(progress, total - len(wanted.rotations) + len(galois), total)
        return EvaluationKeys(
            params=self._params, public_key=public_key, relin=relin, galois=galois
        )

    def encrypt(self, slots: NDArray[np.float64], scale: float) -> list[SeededCiphertext]:
        """Encrypt (count, slots) real values at the highest level, symmetric and seeded.

        Raises InputError for another shape, values that are not finite, or values that do not
        fit the modulus at this ``scale``.
        """
        return self._encrypt(np.asarray(slots, dtype=np.float64), scale)

    def encrypt_complex(
        self, slots: NDArray[np.complex128], scale: float
    ) -> list[SeededCiphertext]:
        """Encrypt (count, slots) complex values; else as :meth:`encrypt`.

        Queries of this library are real. A malicious client need not keep to that, and the
        attacks on ciphertexts measure what it gains.
        """
        return self._encrypt(np.asarray(slots, dtype=np.complex128), scale)

    def _encrypt(self, values: NDArray[Any], scale: float) -> list[SeededCiphertext]:
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
