"""Arrays to SEAL objects and back, through SEAL's serialised form.

    object  := header(16) members                 header: magic A15E, 16, version, compression,
    members := parms_id(32) ntt(1) size(8) n(8)            two zero bytes, total bytes (u64)
               moduli(8) scale(8) correction(8)
               array [seed]                        of a ciphertext; 73 bytes before the array
    array   := header(16) count(8) words           half of the words if a seed follows
    seed    := header(16) generator(1) bytes(64)
    keys    := header(16) parms_id(32) count(8) { digits(8) ciphertext* }*

SEAL is handed streams that this module wrote from checked residues, never bytes from outside:
its loaders are not hardened (they inflate, allocate and check in that order). What SEAL itself
saves is always zstd-compressed; only such bytes of our own are inflated here.
Format: microsoft/SEAL 4.3, serialization.h, ciphertext.cpp, kswitchkeys.cpp, randomgen.cpp.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import zstandard
from numpy.typing import NDArray
from tenseal import sealapi

from he_infer.errors import BackendError, ParameterError
from he_infer.keys.evaluation import galois_element
from he_infer.params import CKKSParams
from he_infer.wire.types import (
    SEED_BYTES,
    Ciphertext,
    SeededCiphertext,
    SeededKeySwitchKey,
    SeededPublicKey,
    check_residues,
    key_moduli,
)

_HEADER: Final = struct.Struct("<HBBBBHQ")  # magic, header size, major, minor, mode, 0, total
_MAGIC, _MAJOR, _MINOR = 0xA15E, 4, 3
_UNCOMPRESSED, _ZSTD = 0, 2
_MEMBERS: Final = struct.Struct("<4QBQQQdQ")
_PLAINTEXT: Final = struct.Struct("<4QQd")
_COUNT: Final = struct.Struct("<Q")
_BLAKE2XB: Final = 1
_SEED_OBJECT_BYTES: Final = _HEADER.size + 1 + SEED_BYTES
_IOV_MAX: Final = 1024  # POSIX guarantees 16; Linux and macOS take 1024 buffers a call

Buffer = bytes | memoryview


def seal_context(params: CKKSParams) -> sealapi.SEALContext:
    """Build SEAL's context for ``params``, with SEAL's own 128-bit check on top of ours.

    Raises ParameterError if SEAL refuses the parameters.
    """
    parms = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
    parms.set_poly_modulus_degree(params.n)
    parms.set_coeff_modulus([sealapi.Modulus(q) for q in key_moduli(params)])
    context = sealapi.SEALContext(parms, True, sealapi.SEC_LEVEL_TYPE.TC128)
    if not context.parameters_set():
        raise ParameterError(f"SEAL refuses the parameters: {context.parameters_error_message()}")
    return context


def parms_id(context: sealapi.SEALContext, level: int) -> list[int]:
    """SEAL's identifier of the modulus at ``level``; raises ParameterError if there is none."""
    data = context.first_context_data()
    while data is not None:
        if len(data.parms().coeff_modulus()) == level + 1:
            return list(data.parms_id())
        data = data.next_context_data()
    raise ParameterError(f"level {level} does not exist under these parameters")


# --- arrays → SEAL ------------------------------------------------------------------------


def load_ciphertext(
    context: sealapi.SEALContext, params: CKKSParams, ciphertext: Ciphertext | SeededCiphertext
) -> sealapi.Ciphertext:
    """A SEAL ciphertext from residues; raises WireError if they are not valid residues."""
    ciphertext.check(params)
    identity = parms_id(context, ciphertext.level)
    if isinstance(ciphertext, SeededCiphertext):
        parts = _ciphertext_parts(identity, ciphertext.c0, ciphertext.scale, ciphertext.seed)
    else:
        parts = _ciphertext_parts(identity, ciphertext.residues, ciphertext.scale, None)
    return _load(sealapi.Ciphertext(), context, parts)


def load_public_key(
    context: sealapi.SEALContext, params: CKKSParams, key: SeededPublicKey
) -> sealapi.PublicKey:
    """A SEAL public key; raises WireError if the residues are not valid."""
    key.check(params)
    rows = np.zeros((len(key_moduli(params)), params.n), dtype=np.uint64)
    rows[: len(key.b)] = key.b  # SEAL never reads the rows that were cut off
    parts = _ciphertext_parts(list(context.key_parms_id()), rows, 1.0, key.seed)
    return _load(sealapi.PublicKey(), context, parts)


def load_relin_keys(
    context: sealapi.SEALContext, params: CKKSParams, key: SeededKeySwitchKey
) -> sealapi.RelinKeys:
    """SEAL's relinearisation key; raises WireError if the residues are not valid."""
    return _load(sealapi.RelinKeys(), context, _key_parts(context, params, {0: key}, 1))


def load_galois_keys(
    context: sealapi.SEALContext, params: CKKSParams, keys: Mapping[int, SeededKeySwitchKey]
) -> sealapi.GaloisKeys:
    """SEAL's rotation keys, one per step in ``keys`` and no others; raises WireError."""
    by_index = {(galois_element(step, params.n) - 1) // 2: key for step, key in keys.items()}
    return _load(sealapi.GaloisKeys(), context, _key_parts(context, params, by_index, params.n))


def load_secret_key(
    context: sealapi.SEALContext, params: CKKSParams, residues: NDArray[np.uint64]
) -> sealapi.SecretKey:
    """A SEAL secret key from residues (L + 2, n) in NTT order; raises WireError."""
    check_residues(residues, key_moduli(params), params.n)
    words = residues.size
    members = _PLAINTEXT.pack(*context.key_parms_id(), words, 1.0)
    parts = _wrap([members, *_array_parts(residues)])
    return _load(sealapi.SecretKey(), context, parts)


# --- SEAL → arrays ------------------------------------------------------------------------


def dump_ciphertext(params: CKKSParams, ciphertext: sealapi.Ciphertext) -> Ciphertext:
    """The residues, level and scale of a SEAL ciphertext, about 10 ms at N = 8192, L = 6."""
    data = saved_bytes(ciphertext)
    words, seed, scale, _ = _read_ciphertext(data, 0, params.n)
    if seed is not None:
        raise BackendError("expected an expanded ciphertext, got a seeded one")
    result = Ciphertext(residues=words, scale=scale)
    result.check(params)
    return result


def dump_seeded_ciphertext(params: CKKSParams, serializable: Any) -> SeededCiphertext:
    """The residues and seed of what SEAL's one-argument ``encrypt_symmetric`` returned."""
    words, seed, scale, _ = _read_ciphertext(saved_bytes(serializable), 0, params.n)
    result = SeededCiphertext(c0=words[0], seed=_present(seed), scale=scale)
    result.check(params)
    return result


def dump_public_key(params: CKKSParams, serializable: Any) -> SeededPublicKey:
    """A seeded encryption of zero at SEAL's key level, as a public key."""
    words, seed, _, _ = _read_ciphertext(saved_bytes(serializable), 0, params.n)
    result = SeededPublicKey(b=words[0], seed=_present(seed))
    result.check(params)
    return result


def dump_key_switch_keys(params: CKKSParams, serializable: Any) -> dict[int, SeededKeySwitchKey]:
    """Seeded relinearisation or Galois keys, by their index in SEAL's table.

    The index is 0 for the relinearisation key and (element − 1) / 2 for a Galois key.
    """
    data = saved_bytes(serializable)
    position = _HEADER.size + 32
    (table,) = _COUNT.unpack_from(data, position)
    position += _COUNT.size
    found: dict[int, SeededKeySwitchKey] = {}
    for index in range(table):
        (digits,) = _COUNT.unpack_from(data, position)
        position += _COUNT.size
        rows, seeds = [], []
        for _ in range(digits):
            words, seed, _, position = _read_ciphertext(data, position, params.n)
            rows.append(words[0])
            seeds.append(_present(seed))
        if rows:
            found[index] = SeededKeySwitchKey(b=np.stack(rows), seeds=tuple(seeds))
            found[index].check(params)
    return found


def dump_secret_key(params: CKKSParams, key: sealapi.SecretKey) -> NDArray[np.uint64]:
    """The residues (L + 2, n) of a SEAL secret key, in NTT order."""
    data = saved_bytes(key)
    moduli = key_moduli(params)
    start = _HEADER.size + _PLAINTEXT.size
    words, _ = _read_array(data, start, len(moduli) * params.n)
    residues = words.reshape(len(moduli), params.n)
    check_residues(residues, moduli, params.n)
    return residues


def saved_bytes(seal_object: Any) -> bytes:
    """What SEAL saves for its own object, inflated and with its header set to uncompressed."""
    with _scratch_path() as path:
        seal_object.save(path)
        data = Path(path).read_bytes()
    magic, size, major, minor, mode, _, total = _HEADER.unpack_from(data)
    if (magic, size, major, minor) != (_MAGIC, _HEADER.size, _MAJOR, _MINOR) or total != len(data):
        raise BackendError("this TenSEAL's SEAL writes another format: expected version 4.3")
    body = data[_HEADER.size :]
    if mode == _ZSTD:
        body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
    elif mode != _UNCOMPRESSED:
        raise BackendError("SEAL saved with a compression other than zstd or none")
    return _header(len(body)) + body


# --- format -------------------------------------------------------------------------------


def _header(body_bytes: int) -> bytes:
    total = _HEADER.size + body_bytes
    return _HEADER.pack(_MAGIC, _HEADER.size, _MAJOR, _MINOR, _UNCOMPRESSED, 0, total)


def _wrap(parts: list[Buffer]) -> list[Buffer]:
    return [_header(sum(len(part) for part in parts)), *parts]


def _array_parts(words: NDArray[np.uint64]) -> list[Buffer]:
    # SEAL's words are little-endian; astype copies only on a big-endian machine.
    flat = np.ascontiguousarray(words.reshape(-1).astype("<u8", copy=False))
    return _wrap([_COUNT.pack(flat.size), flat.data.cast("B")])


def _ciphertext_parts(
    identity: list[int], words: NDArray[np.uint64], scale: float, seed: bytes | None
) -> list[Buffer]:
    size = 2 if seed is not None else words.shape[0]
    moduli, n = words.shape[-2:]
    parts: list[Buffer] = [_MEMBERS.pack(*identity, 1, size, n, moduli, scale, 1)]
    parts += _array_parts(words)
    if seed is not None:
        parts += _wrap([bytes([_BLAKE2XB]) + seed])
    return _wrap(parts)


def _key_parts(
    context: sealapi.SEALContext,
    params: CKKSParams,
    by_index: Mapping[int, SeededKeySwitchKey],
    table: int,
) -> list[Buffer]:
    identity = list(context.key_parms_id())
    parts: list[Buffer] = [struct.pack("<5Q", *identity, table)]
    following = 0
    for index in sorted(by_index):
        key = _uncut(by_index[index], params)
        parts.append(bytes(_COUNT.size * (index - following)))  # entries without a key
        parts.append(_COUNT.pack(len(key.seeds)))
        for rows, seed in zip(key.b, key.seeds, strict=True):
            parts += _ciphertext_parts(identity, rows, 1.0, seed)
        following = index + 1
    parts.append(bytes(_COUNT.size * (table - following)))
    return _wrap(parts)


def _uncut(key: SeededKeySwitchKey, params: CKKSParams) -> SeededKeySwitchKey:
    """A cut key in the shape that SEAL wants; at the levels of its use SEAL reads no padding."""
    key.check(params)
    moduli = len(key_moduli(params))
    if len(key.b) == moduli - 1:
        return key
    b = np.zeros((moduli - 1, moduli, params.n), dtype=np.uint64)
    b[: len(key.b), : len(key.b)] = key.b[:, :-1]
    b[: len(key.b), -1] = key.b[:, -1]
    padding = (bytes(SEED_BYTES),) * (moduli - 1 - len(key.b))
    return SeededKeySwitchKey(b=b, seeds=(*key.seeds, *padding))


def _read_array(data: bytes, start: int, words: int) -> tuple[NDArray[np.uint64], int]:
    """An array object at ``start``: (words as an owned array, position after it)."""
    _expect_header(data, start)
    (count,) = _COUNT.unpack_from(data, start + _HEADER.size)
    if count != words:
        raise BackendError(f"SEAL saved {count} words where {words} were expected")
    body = start + _HEADER.size + _COUNT.size
    values = np.frombuffer(data, dtype="<u8", count=count, offset=body).astype(np.uint64)
    return values, body + 8 * count


def _read_ciphertext(
    data: bytes, start: int, n: int
) -> tuple[NDArray[np.uint64], bytes | None, float, int]:
    """A ciphertext object at ``start``: (words (polys, moduli, n), seed, scale, end)."""
    total = _expect_header(data, start)
    *_, ntt, size, degree, moduli, scale, _ = _MEMBERS.unpack_from(data, start + _HEADER.size)
    if ntt != 1 or degree != n:
        raise BackendError(f"expected NTT form and degree {n}, got form {ntt}, degree {degree}")
    array_start = start + _HEADER.size + _MEMBERS.size
    (count,) = _COUNT.unpack_from(data, array_start + _HEADER.size)
    seeded = count == moduli * n
    polys = 1 if seeded else size
    words, end = _read_array(data, array_start, polys * moduli * n)
    seed = None
    if seeded:
        _expect_header(data, end)
        if data[end + _HEADER.size] != _BLAKE2XB:
            raise BackendError("SEAL used another generator than BLAKE2Xb for its seed")
        seed = data[end + _HEADER.size + 1 : end + _SEED_OBJECT_BYTES]
        end += _SEED_OBJECT_BYTES
    if end != start + total:
        raise BackendError("SEAL saved a ciphertext of an unexpected length")
    return words.reshape(polys, moduli, n), seed, scale, end


def _expect_header(data: bytes, start: int) -> int:
    magic, size, _, _, mode, _, total = _HEADER.unpack_from(data, start)
    if (magic, size, mode) != (_MAGIC, _HEADER.size, _UNCOMPRESSED):
        raise BackendError("SEAL saved a nested object in an unexpected form")
    return int(total)


def _present(seed: bytes | None) -> bytes:
    if seed is None:
        raise BackendError("expected a seeded object, got an expanded one")
    return seed


# --- files in memory ----------------------------------------------------------------------


def _load(target: Any, context: sealapi.SEALContext, parts: list[Buffer]) -> Any:
    with _scratch_path() as path:
        _write(path, parts)
        try:
            target.load(context, path)
        except (ValueError, RuntimeError) as error:
            raise BackendError(f"SEAL refuses an object rebuilt for it: {error}") from error
    return target


def _write(path: str, parts: list[Buffer]) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        for first in range(0, len(parts), _IOV_MAX):
            block = [memoryview(part) for part in parts[first : first + _IOV_MAX] if len(part)]
            while block:
                written = os.writev(descriptor, block)
                while block and written >= len(block[0]):
                    written -= len(block.pop(0))
                if written:
                    block[0] = block[0][written:]
    finally:
        os.close(descriptor)


@contextmanager
def _scratch_path() -> Iterator[str]:
    """A path SEAL can open: anonymous memory on Linux, else a file in a private directory."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("he-infer", os.MFD_CLOEXEC)
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        # mkdtemp creates with mode 0700; secrets saved here never leave the owner's reach.
        with tempfile.TemporaryDirectory(prefix="he-infer-") as folder:
            path = Path(folder) / "object"
            path.touch(mode=0o600)
            yield str(path)
