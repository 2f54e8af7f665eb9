"""Frames to bytes and back, whole or as they arrive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from he_infer.errors import TooLargeError, WireError
from he_infer.wire.envelope import HEADER_BYTES, Expected, Kind, read_header
from he_infer.wire.residues import pack_residues, unpack_residues
from he_infer.wire.types import (
    SEED_BYTES,
    Ciphertext,
    SeededCiphertext,
    SeededKeySwitchKey,
    SeededPublicKey,
    cut_moduli,
    level_moduli,
    public_moduli,
)

Frame = Ciphertext | SeededCiphertext | SeededPublicKey | SeededKeySwitchKey

DEFAULT_LIMIT_BYTES: Final = 1 << 30


class FrameReader:
    """Parses one envelope as it arrives, holding at most one unfinished frame.

    ``feed`` returns the frames that became complete; ``finish`` raises WireError if bytes are
    missing. ``limit_bytes`` bounds the whole envelope: TooLargeError on construction if what
    is expected exceeds it. After any error the reader refuses to go on.
    """

    __slots__ = ("_expected", "_failed", "_frames", "_header_read", "_unfinished")

    def __init__(self, expected: Expected, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        if expected.total_bytes > limit_bytes:
            raise TooLargeError(
                f"an envelope of {expected.total_bytes} bytes exceeds the limit of {limit_bytes}"
            )
        self._expected = expected
        self._unfinished = bytearray()
        self._frames = 0
        self._header_read = False
        self._failed = False

    @property
    def complete(self) -> bool:
        return self._header_read and self._frames == self._expected.count

    @property
    def _next_bytes(self) -> int:
        """Length of what comes next, the header or a frame."""
        return self._expected.frame_lengths[self._frames] if self._header_read else HEADER_BYTES

    def feed(self, chunk: bytes | bytearray | memoryview) -> list[Frame]:
        """Take the next bytes, in chunks of any size; raises WireError and its subclasses."""
        if self._failed:
            raise WireError("this envelope was refused already")
        try:
            return self._feed(memoryview(chunk).cast("B"))
        except WireError:
            self._failed = True
            self._unfinished = bytearray()
            raise

    def finish(self) -> None:
        """Declare the end of the stream; raises WireError if the envelope is incomplete."""
        if self._failed:
            raise WireError("this envelope was refused already")
        if not self.complete:
            self._failed = True
            raise WireError(
                f"truncated: {self._frames} of {self._expected.count} frames arrived in full"
            )

    def _feed(self, chunk: memoryview) -> list[Frame]:
        found: list[Frame] = []
        while len(chunk):
            if self.complete:
                raise WireError("trailing bytes after the last frame")
            wanted = self._next_bytes
            if not self._unfinished and len(chunk) >= wanted:
                piece, chunk = chunk[:wanted], chunk[wanted:]  # parsed where it lies
            else:
                taken = wanted - len(self._unfinished)
                self._unfinished += chunk[:taken]
                chunk = chunk[taken:]
                if len(self._unfinished) < wanted:
                    break
                piece, self._unfinished = memoryview(self._unfinished), bytearray()
            if self._header_read:
                found.append(read_frame(piece, self._expected, self._frames))
                self._frames += 1
            else:
                self._expected.check(read_header(piece))
                self._header_read = True
        return found


def read_envelope(
    data: bytes | bytearray | memoryview,
    expected: Expected,
    *,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
) -> list[Frame]:
    """All frames of a whole envelope; raises WireError and its subclasses."""
    if len(data) > limit_bytes:
        raise TooLargeError(f"{len(data)} bytes exceed the limit of {limit_bytes}")
    reader = FrameReader(expected, limit_bytes=limit_bytes)
    frames = reader.feed(data)
    reader.finish()
    return frames


def write_envelope(frames: Sequence[Frame], expected: Expected) -> bytes:
    """The envelope that a reader with the same expectations accepts.

    Raises WireError if the frames do not meet the expectations themselves.
    """
    if len(frames) != expected.count:
        raise WireError(f"expected {expected.count} frames, got {len(frames)}")
    parts = [expected.header.to_bytes()]
    for index, frame in enumerate(frames):
        part = write_frame(frame, expected, index)
        if len(part) != expected.frame_lengths[index]:
            raise WireError(f"frame {index} does not have the shape that the envelope states")
        parts.append(part)
    return b"".join(parts)


def read_frame(data: bytes | bytearray | memoryview, expected: Expected, index: int) -> Frame:
    """Frame number ``index``, of exactly its length; raises WireError for bad residues."""
    params, view = expected.params, memoryview(data)
    if expected.kind is Kind.REPLY:
        moduli = level_moduli(params, expected.level)
        residues = unpack_residues(view, expected.size, moduli, params.n)
        return Ciphertext(residues=residues, scale=expected.scale)
    if expected.kind is Kind.QUERY:
        moduli = level_moduli(params, expected.level)
        c0 = unpack_residues(view[SEED_BYTES:], 1, moduli, params.n)[0]
        return SeededCiphertext(c0=c0, seed=bytes(view[:SEED_BYTES]), scale=expected.scale)
    assert expected.keys is not None
    if index == 0:
        moduli = public_moduli(params, expected.keys.public)
        b = unpack_residues(view[SEED_BYTES:], 1, moduli, params.n)[0]
        return SeededPublicKey(b=b, seed=bytes(view[:SEED_BYTES]))
    level = expected.keys.switches[index - 1]
    digits, moduli = level + 1, cut_moduli(params, level)
    seeds = tuple(bytes(view[i * SEED_BYTES : (i + 1) * SEED_BYTES]) for i in range(digits))
    return SeededKeySwitchKey(
        b=unpack_residues(view[digits * SEED_BYTES :], digits, moduli, params.n), seeds=seeds
    )


def write_frame(frame: Frame, expected: Expected, index: int) -> bytes:
    """Bytes of frame number ``index``; raises WireError if ``expected`` describes another."""
    params = expected.params
    wanted: type[Frame] = {
        Kind.QUERY: SeededCiphertext,
        Kind.REPLY: Ciphertext,
        Kind.EVALUATION_KEYS: SeededPublicKey if index == 0 else SeededKeySwitchKey,
    }[expected.kind]
    if not isinstance(frame, wanted):
        raise WireError(f"expected a {wanted.__name__}, got a {type(frame).__name__}")
    # Packing checks shapes and residues.
    if isinstance(frame, SeededPublicKey):
        return frame.seed + pack_residues(frame.b[None], public_moduli(params, frame.level))
    if isinstance(frame, SeededKeySwitchKey):
        return b"".join(frame.seeds) + pack_residues(frame.b, cut_moduli(params, frame.level))
    if frame.scale != expected.scale or frame.level != expected.level:
        raise WireError(
            f"expected level {expected.level} and the envelope's scale, got level {frame.level}: "
            "every frame shares one level and one scale"
        )
    moduli = level_moduli(params, frame.level)
    if isinstance(frame, SeededCiphertext):
        return frame.seed + pack_residues(frame.c0[None], moduli)
    return pack_residues(frame.residues, moduli)
