"""The envelope: a fixed header, then a number of frames whose lengths are known beforehand.

    offset  bytes
    0       8     magic  89 48 45 49 0D 0A 1A 0A
    8       2     format version
    10      1     kind: 1 query, 2 reply, 3 evaluation keys
    11      1     polynomials in each ciphertext (0 for keys)
    12      2     level (of keys: the highest one)
    14      2     zero
    16      4     count of frames
    20      4     ring degree
    24      8     scale, binary64 (of keys: 1.0)
    32      8     bytes of all frames together
    40      32    SHA-256 of the parameters
    72      32    SHA-256 of the plan (of keys: of the list of keys and their levels)
    104     32    SHA-256 of the evaluation keys (of keys: zero)
    136     …     frames, bit-packed (residues.py), nothing between or behind them

    query frame        := seed(64) c0
    reply frame        := c0 c1 …
    evaluation keys    := public key: seed(64) b ;  then the relinearisation key, if products
                          need one, and one key per step in ascending order: digits × seed(64),
                          digits × b; each cut to its level (key_levels.py)

A reader states an :class:`Expected` first. Every field of the header must equal it, so nothing
that comes from outside decides how much memory is taken. No field can carry a secret key.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Final, Self

from he_infer.errors import MismatchError, TooLargeError, VersionError, WireError
from he_infer.params import CKKSParams
from he_infer.wire.foreign import looks_like_seal_object, looks_like_tenseal_context
from he_infer.wire.key_levels import KeyLevels
from he_infer.wire.residues import packed_bytes
from he_infer.wire.types import (
    MAX_SIZE,
    SEED_BYTES,
    check_scale,
    cut_moduli,
    level_moduli,
    public_moduli,
)

MAGIC: Final = b"\x89HEI\r\n\x1a\n"  # as PNG's: a text-mode transfer breaks it visibly
FORMAT_VERSION: Final = 2
MAX_COUNT: Final = 1 << 20
NO_DIGEST: Final = "00" * 32
_HEADER: Final = struct.Struct("<8sHBBHHIIdQ32s32s32s")
HEADER_BYTES: Final = _HEADER.size


class Kind(IntEnum):
    """What an envelope holds."""

    QUERY = 1
    REPLY = 2
    EVALUATION_KEYS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The fields of an envelope's header as they came, digests in hexadecimal; not yet trusted."""

    kind: Kind
    size: int
    level: int
    count: int
    n: int
    scale: float
    body_bytes: int
    params_digest: str
    plan_digest: str
    keys_digest: str

    def to_bytes(self) -> bytes:
        return _HEADER.pack(
            MAGIC,
            FORMAT_VERSION,
            self.kind,
            self.size,
            self.level,
            0,
            self.count,
            self.n,
            self.scale,
            self.body_bytes,
            bytes.fromhex(self.params_digest),
            bytes.fromhex(self.plan_digest),
            bytes.fromhex(self.keys_digest),
        )


def read_header(data: bytes | bytearray | memoryview) -> Header:
    """Read the first ``HEADER_BYTES`` bytes of an envelope.

    Raises VersionError for another format version, WireError for anything that is not a header.
    """
    if looks_like_tenseal_context(data) or looks_like_seal_object(data):
        raise WireError(
            "a TenSEAL or SEAL object instead of an envelope: nothing of it was read; if it held "
            "a secret key, that key is burnt: make new keys"
        )
    if len(data) < HEADER_BYTES:
        raise WireError(f"truncated: a header has {HEADER_BYTES} bytes, got {len(data)}")
    (magic, version, kind, size, level, zero, count, n, scale, body, params, plan, keys) = (
        _HEADER.unpack_from(data)
    )
    if magic != MAGIC:
        raise WireError("not an envelope of this library: the first bytes are wrong")
    if version != FORMAT_VERSION:
        raise VersionError(
            f"expected envelope format {FORMAT_VERSION}, got {version}: "
            "install the same release on both sides"
        )
    if kind not in tuple(Kind):
        raise WireError(f"unknown kind of envelope {kind}")
    if zero != 0:
        raise WireError("a reserved field is not zero")
    return Header(
        kind=Kind(kind),
        size=size,
        level=level,
        count=count,
        n=n,
        scale=scale,
        body_bytes=body,
        params_digest=params.hex(),
        plan_digest=plan.hex(),
        keys_digest=keys.hex(),
    )


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the reader is prepared to accept: every field is compared, every length computed.

    Build one with :meth:`query`, :meth:`reply` or :meth:`evaluation_keys`. ``keys`` is given
    for evaluation keys only. Digests are 64 hexadecimal digits. Raises WireError for
    expectations that no envelope can meet.
    """

    kind: Kind
    params: CKKSParams
    count: int
    level: int
    size: int
    scale: float
    plan_digest: str
    keys_digest: str
    keys: KeyLevels | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_COUNT:
            raise WireError(f"count {self.count} is outside 1…{MAX_COUNT}")
        level_moduli(self.params, self.level)
        if not 0 <= self.size <= MAX_SIZE:
            raise WireError(f"size {self.size} is outside 0…{MAX_SIZE}")
        check_scale(self.scale)
        for digest in (self.plan_digest, self.keys_digest):
            if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
                raise WireError("a digest is 64 lower-case hexadecimal digits")

    @classmethod
    def query(
        cls, params: CKKSParams, *, plan_digest: str, keys_digest: str, count: int, scale: float
    ) -> Self:
        """``count`` fresh seeded ciphertexts at the highest level."""
        return cls(
            kind=Kind.QUERY,
            params=params,
            count=count,
            level=params.max_level,
            size=2,
            scale=scale,
            plan_digest=plan_digest,
            keys_digest=keys_digest,
        )

    @classmethod
    def reply(
        cls,
        params: CKKSParams,
        *,
        plan_digest: str,
        keys_digest: str,
        count: int,
        scale: float,
        level: int = 0,
        size: int = 2,
    ) -> Self:
        """``count`` ciphertexts of ``size`` polynomials at ``level``."""
        if size < 2:
            raise WireError(f"a ciphertext has at least 2 polynomials, not {size}")
        return cls(
            kind=Kind.REPLY,
            params=params,
            count=count,
            level=level,
            size=size,
            scale=scale,
            plan_digest=plan_digest,
            keys_digest=keys_digest,
        )

    @classmethod
    def evaluation_keys(cls, params: CKKSParams, keys: KeyLevels) -> Self:
        """Exactly the keys listed, each cut to its level."""
        keys.check(params)
        return cls(
            kind=Kind.EVALUATION_KEYS,
            params=params,
            count=1 + len(keys.switches),
            level=params.max_level,
            size=0,
            scale=1.0,
            plan_digest=keys.digest,
            keys_digest=NO_DIGEST,
            keys=keys,
        )

    @cached_property
    def frame_lengths(self) -> tuple[int, ...]:
        """Bytes of each frame."""
        params = self.params
        if self.keys is not None:
            digit = {
                level: SEED_BYTES + packed_bytes(cut_moduli(params, level), params.n)
                for level in set(self.keys.switches)
            }
            public = SEED_BYTES + packed_bytes(public_moduli(params, self.keys.public), params.n)
            return (public, *(digit[level] * (level + 1) for level in self.keys.switches))
        polynomial = packed_bytes(level_moduli(params, self.level), params.n)
        if self.kind is Kind.QUERY:
            return (SEED_BYTES + polynomial,) * self.count
        return (self.size * polynomial,) * self.count

    @property
    def body_bytes(self) -> int:
        return sum(self.frame_lengths)

    @property
    def total_bytes(self) -> int:
        """The exact length of the envelope, header included."""
        return HEADER_BYTES + self.body_bytes

    @property
    def header(self) -> Header:
        """The one header that meets these expectations."""
        return Header(
            kind=self.kind,
            size=self.size,
            level=self.level,
            count=self.count,
            n=self.params.n,
            scale=self.scale,
            body_bytes=self.body_bytes,
            params_digest=self.params.digest,
            plan_digest=self.plan_digest,
            keys_digest=self.keys_digest,
        )

    def check(self, header: Header) -> None:
        """Raise MismatchError, TooLargeError or WireError unless ``header`` is the expected one."""
        expected = self.header
        if header.kind is not expected.kind:
            raise WireError(
                f"expected {expected.kind.name.lower()}, got {header.kind.name.lower()}"
            )
        if header.params_digest != expected.params_digest:
            raise MismatchError("made for other CKKS parameters: fetch the model's specification")
        if header.plan_digest != expected.plan_digest:
            raise MismatchError(
                "made for other rotation steps or levels: make keys for this model"
                if self.kind is Kind.EVALUATION_KEYS
                else "made for another plan: fetch the model's specification"
            )
        if header.keys_digest != expected.keys_digest:
            raise MismatchError("bound to other evaluation keys: upload the keys of this client")
        if header.count > expected.count or header.body_bytes > expected.body_bytes:
            raise TooLargeError(
                f"expected {expected.count} frames in {expected.body_bytes} bytes, "
                f"got {header.count} in {header.body_bytes}"
            )
        # Bits, not values: a scale off by one unit in the last place is another scale.
        if struct.pack("<d", header.scale) != struct.pack("<d", expected.scale):
            raise WireError("the scale is not the one that the plan fixes")
        for name in ("size", "level", "count", "n", "body_bytes"):
            came, wanted = getattr(header, name), getattr(expected, name)
            if came != wanted:
                raise WireError(f"expected {name} {wanted}, got {came}")
