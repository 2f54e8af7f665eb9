"""Framed, versioned, size-limited bytes: the only parser of bytes that come from outside."""

from __future__ import annotations

from he_infer.wire.envelope import FORMAT_VERSION as FORMAT_VERSION
from he_infer.wire.envelope import HEADER_BYTES as HEADER_BYTES
from he_infer.wire.envelope import NO_DIGEST as NO_DIGEST
from he_infer.wire.envelope import Expected as Expected
from he_infer.wire.envelope import Header as Header
from he_infer.wire.envelope import Kind as Kind
from he_infer.wire.envelope import read_header as read_header
from he_infer.wire.foreign import carries_secret_key as carries_secret_key
from he_infer.wire.foreign import looks_like_seal_object as looks_like_seal_object
from he_infer.wire.foreign import looks_like_tenseal_context as looks_like_tenseal_context
from he_infer.wire.frames import DEFAULT_LIMIT_BYTES as DEFAULT_LIMIT_BYTES
from he_infer.wire.frames import Frame as Frame
from he_infer.wire.frames import FrameReader as FrameReader
from he_infer.wire.frames import read_envelope as read_envelope
from he_infer.wire.frames import write_envelope as write_envelope
from he_infer.wire.key_levels import KeyLevels as KeyLevels
from he_infer.wire.key_levels import canonical_steps as canonical_steps
from he_infer.wire.residues import pack_residues as pack_residues
from he_infer.wire.residues import packed_bytes as packed_bytes
from he_infer.wire.residues import unpack_residues as unpack_residues
from he_infer.wire.types import Ciphertext as Ciphertext
from he_infer.wire.types import SeededCiphertext as SeededCiphertext
from he_infer.wire.types import SeededKeySwitchKey as SeededKeySwitchKey
from he_infer.wire.types import SeededPublicKey as SeededPublicKey
