"""The key file: a secret key at rest, under a passphrase.

    preamble := magic(8) version(2) function(1) zero(1) cost(12) salt(16) nonce(12) nonce(12)
    file     := preamble · wrapped file key(32 + 16) · contents(… + 16)

A random file key encrypts the contents; the passphrase, stretched, encrypts the file key. Both
are AES-256-GCM with everything before them as associated data, so that no byte can be changed
unnoticed. The stretching is Argon2id (RFC 9106) or, where the cryptography build lacks it,
scrypt (RFC 7914). A file states its cost; a cost above the cap is refused before any work.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from he_infer.errors import KeyFileError, ParameterError
from he_infer.keys.private_file import read_file, write_private
from he_infer.params import CKKSParams

MAGIC: Final = b"HEIKEY\r\n"
FORMAT_VERSION: Final = 1
MAX_FILE_BYTES: Final = 64 << 20
_PREAMBLE: Final = struct.Struct("<8sHBBIII16s12s12s")
_KEY_BYTES, _TAG_BYTES, _NONCE_BYTES, _SALT_BYTES = 32, 16, 12, 16
_WRAPPED_END: Final = _PREAMBLE.size + _KEY_BYTES + _TAG_BYTES
_ARGON2ID, _SCRYPT = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Argon2idCost:
    """Argon2id: memory in KiB, passes, lanes; raises KeyFileError outside the accepted range."""

    memory_kib: int = 64 * 1024
    passes: int = 3
    lanes: int = 4

    def __post_init__(self) -> None:
        within = 8 * self.lanes <= self.memory_kib <= 512 * 1024 and 1 <= self.lanes <= 16
        if not (within and 1 <= self.passes <= 8):
            raise KeyFileError(
                "the passphrase cost is out of range: at most 512 MiB, 8 passes, 16 lanes"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScryptCost:
    """scrypt: log2 of N, block size r, parallelism p; raises KeyFileError if out of range."""

    log2_n: int = 18
    block_size: int = 8
    parallelism: int = 1

    def __post_init__(self) -> None:
        within = 1 <= self.log2_n <= 19 and 1 <= self.block_size <= 8
        if not (within and 1 <= self.parallelism <= 2):
            raise KeyFileError("the passphrase cost is out of range: at most N = 2^19, r 8, p 2")


PassphraseCost = Argon2idCost | ScryptCost


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a key file protects: the parameters and the packed secret residues."""

    params: CKKSParams
    secret: bytes = field(repr=False)


def recommended_cost() -> PassphraseCost:
    """Argon2id at 64 MiB, 3 passes, 4 lanes; scrypt at 2^18 where Argon2id is missing."""
    try:
        cheapest = Argon2idCost(memory_kib=8, passes=1, lanes=1)
        _stretch("probe", bytes(_SALT_BYTES), cheapest)
    except KeyFileError:
        return ScryptCost()
    return Argon2idCost()


def write(
    path: Path, contents: Contents, passphrase: str, *, cost: PassphraseCost, overwrite: bool
) -> None:
    """Write ``contents`` to ``path`` with mode 0600, in one step.

    The folder is made with mode 0700 if it does not exist. Raises KeyFileError if the file
    exists and ``overwrite`` is false, or the passphrase is empty.
    """
    if path.exists() and not overwrite:
        raise KeyFileError(f"{path.name} exists: choose another name or ask to overwrite it")
    data = seal(contents, passphrase, cost=cost)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise KeyFileError(f"cannot write {path.name}: {error.strerror}") from error
    write_private(path, data, overwrite=overwrite)


def read(path: Path, passphrase: str) -> Contents:
    """Open a key file that only its owner can read.

    Raises KeyFileError for loose permissions, a wrong passphrase, changed or missing bytes,
    another format version, or an excessive passphrase cost.
    """
    try:
        data = read_file(path, most_bytes=MAX_FILE_BYTES + 1, private=True)
    except OSError as error:
        raise KeyFileError(f"cannot open {path.name}: {error.strerror}") from error
    return unseal(data, passphrase)


def seal(contents: Contents, passphrase: str, *, cost: PassphraseCost) -> bytes:
    """The bytes of a key file; raises KeyFileError for an empty passphrase."""
    if not passphrase:
        raise KeyFileError("the passphrase is empty: choose one")
    salt, wrap_nonce, nonce = (os.urandom(k) for k in (_SALT_BYTES, _NONCE_BYTES, _NONCE_BYTES))
    if isinstance(cost, Argon2idCost):
        function, numbers = _ARGON2ID, (cost.memory_kib, cost.passes, cost.lanes)
    else:
        function, numbers = _SCRYPT, (cost.log2_n, cost.block_size, cost.parallelism)
    preamble = _PREAMBLE.pack(MAGIC, FORMAT_VERSION, function, 0, *numbers, salt, wrap_nonce, nonce)
    file_key = AESGCM.generate_key(bit_length=256)
    wrapping = AESGCM(_stretch(passphrase, salt, cost))
    head = preamble + wrapping.encrypt(wrap_nonce, file_key, preamble)
    text = json.dumps(contents.params.to_json(), separators=(",", ":")).encode()
    body = struct.pack("<I", len(text)) + text + contents.secret
    return head + AESGCM(file_key).encrypt(nonce, body, head)


def unseal(data: bytes, passphrase: str) -> Contents:
    """Open the bytes of a key file; raises KeyFileError (see :func:`read`)."""
    if len(data) > MAX_FILE_BYTES:
        raise KeyFileError(f"the key file exceeds {MAX_FILE_BYTES} bytes")
    if data[: len(MAGIC)] != MAGIC:
        raise KeyFileError("not a key file, or its first bytes are damaged: restore a backup")
    if len(data) < _WRAPPED_END + _TAG_BYTES:
        raise KeyFileError("the key file is truncated: restore a backup")
    _, version, function, zero, a, b, c, salt, wrap_nonce, nonce = _PREAMBLE.unpack_from(data)
    if version != FORMAT_VERSION:
        raise KeyFileError(
            f"expected key file version {FORMAT_VERSION}, got {version}: "
            "open it with the release that wrote it"
        )
    if zero != 0 or function not in (_ARGON2ID, _SCRYPT):
        raise KeyFileError("unknown passphrase function: the file is damaged or newer")
    cost: PassphraseCost = (
        Argon2idCost(memory_kib=a, passes=b, lanes=c)
        if function == _ARGON2ID
        else ScryptCost(log2_n=a, block_size=b, parallelism=c)
    )
    head = data[:_WRAPPED_END]
    try:
        file_key = AESGCM(_stretch(passphrase, salt, cost)).decrypt(
            wrap_nonce, head[_PREAMBLE.size :], head[: _PREAMBLE.size]
        )
    except InvalidTag as error:
        raise KeyFileError(
            "wrong passphrase, or the head of the file is damaged: try again or restore a backup"
        ) from error
    try:
        body = AESGCM(file_key).decrypt(nonce, data[_WRAPPED_END:], head)
    except InvalidTag as error:
        raise KeyFileError(
            "the passphrase is right but the contents are damaged or truncated: restore a backup"
        ) from error
    return _parse(body)


def _parse(body: bytes) -> Contents:
    try:
        (length,) = struct.unpack_from("<I", body)
        params = CKKSParams.from_json(json.loads(body[4 : 4 + length]))
    except (struct.error, ValueError, ParameterError) as error:
        raise KeyFileError("the key file holds no valid parameters") from error
    return Contents(params=params, secret=body[4 + length :])


def _stretch(passphrase: str, salt: bytes, cost: PassphraseCost) -> bytes:
    secret = passphrase.encode()
    try:
        if isinstance(cost, Argon2idCost):
            return Argon2id(
                salt=salt,
                length=_KEY_BYTES,
                iterations=cost.passes,
                lanes=cost.lanes,
                memory_cost=cost.memory_kib,
            ).derive(secret)
        return Scrypt(
            salt=salt,
            length=_KEY_BYTES,
            n=1 << cost.log2_n,
            r=cost.block_size,
            p=cost.parallelism,
        ).derive(secret)
    except (UnsupportedAlgorithm, MemoryError) as error:
        raise KeyFileError(
            f"this machine cannot derive a key at the stated cost: {type(error).__name__}"
        ) from error
