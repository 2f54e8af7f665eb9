"""Framed, versioned, size-limited bytes: the only parser of bytes that come from outside."""

from __future__ import annotations

from he_infer.wire.envelope import (
    FORMAT_VERSION,
    HEADER_BYTES,
    NO_DIGEST,
    Expected,
    Header,
    Kind,
    read_header,
)
from he_infer.wire.foreign import (
    carries_secret_key,
    looks_like_seal_object,
    looks_like_tenseal_context,
)
from he_infer.wire.frames import (
    DEFAULT_LIMIT_BYTES,
    Frame,
    FrameReader,
    read_envelope,
    write_envelope,
)
from he_infer.wire.key_levels import KeyLevels, canonical_steps
from he_infer.wire.residues import pack_residues, packed_bytes, unpack_residues
from he_infer.wire.types import (
    Ciphertext,
    SeededCiphertext,
    SeededKeySwitchKey,
    SeededPublicKey,
)

__all__ = [
    "DEFAULT_LIMIT_BYTES",
    "FORMAT_VERSION",
    "HEADER_BYTES",
    "NO_DIGEST",
    "Ciphertext",
    "Expected",
    "Frame",
    "FrameReader",
    "Header",
    "KeyLevels",
    "Kind",
    "SeededCiphertext",
    "SeededKeySwitchKey",
    "SeededPublicKey",
    "canonical_steps",
    "carries_secret_key",
    "looks_like_seal_object",
    "looks_like_tenseal_context",
    "pack_residues",
    "packed_bytes",
    "read_envelope",
    "read_header",
    "unpack_residues",
    "write_envelope",
]
