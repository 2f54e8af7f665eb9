"""Recognising what people post by mistake: TenSEAL contexts and SEAL objects.

A TenSEAL context saved with its defaults carries the secret key. A service that receives one
must not parse it; it must wipe it and tell the client that this key is burnt. These functions
look at a few bytes and inflate nothing.

    TenSEAL context (protobuf)   0A len [SEAL parameters]   12 len [public]   1A len [private]
"""

from __future__ import annotations

from typing import Final

_SEAL_HEADER: Final = b"\x5e\xa1\x10"  # magic A15E, header size 16
_TENSEAL_PARAMETERS, _TENSEAL_PRIVATE = 0x0A, 0x1A
_MAX_FIELDS: Final = 16
_MAX_VARINT_BYTES: Final = 10


def looks_like_seal_object(data: bytes | bytearray | memoryview) -> bool:
    """Whether the bytes start as an object that SEAL saved: a key, a ciphertext, a plaintext."""
    return bytes(data[: len(_SEAL_HEADER)]) == _SEAL_HEADER


def looks_like_tenseal_context(data: bytes | bytearray | memoryview) -> bool:
    """Whether the bytes start as a TenSEAL context; the first 16 bytes are enough."""
    if len(data) < 2 or data[0] != _TENSEAL_PARAMETERS:
        return False
    _, start = _varint(data, 1)
    return looks_like_seal_object(data[start : start + len(_SEAL_HEADER)])


def carries_secret_key(data: bytes | bytearray | memoryview) -> bool:
    """Whether a TenSEAL context announces a private part that is not empty.

    A SEAL object may be a secret key as well, which its first bytes do not tell: it counts as
    one. False proves nothing if ``data`` is only the beginning of what was posted.
    """
    if looks_like_seal_object(data):
        return True
    if not looks_like_tenseal_context(data):
        return False
    position = 0
    for _ in range(_MAX_FIELDS):
        if position >= len(data):
            return False
        tag = data[position]
        length, start = _varint(data, position + 1)
        if tag == _TENSEAL_PRIVATE and length > 0:
            return True
        if tag & 7 != 2:  # not a length-delimited field: none in a context
            return False
        position = start + length
    return False


def _varint(data: bytes | bytearray | memoryview, position: int) -> tuple[int, int]:
    """The protobuf integer at ``position`` and the position behind it."""
    value = 0
    for offset, byte in enumerate(data[position : position + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * offset)
        if byte < 0x80:
            return value, position + offset + 1
    return value, len(data)
