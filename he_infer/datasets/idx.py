"""The IDX format of the MNIST family: a four-byte magic, big-endian sizes, then the bytes.

    0x00 0x00 TYPE NDIM | size_0 … size_{NDIM-1}, uint32 each | data, exactly Π size bytes

Only unsigned bytes (TYPE 0x08) occur in these data sets, so nothing else is read.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from he_infer.errors import DataError

_UNSIGNED_BYTE = 0x08
_MAX_DIMENSIONS = 4
_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # zlib's way to say: a gzip header must be there


def parse_idx(data: bytes, *, name: str = "IDX data") -> NDArray[np.uint8]:
    """Parse a whole IDX file of unsigned bytes; the array has the shape its header states.

    Raises DataError for another magic, a truncated header or body, or bytes after the end.
    """
    if len(data) < 4:
        raise DataError(f"{name}: truncated: {len(data)} bytes, expected a 4-byte magic")
    dimensions = data[3]
    if data[0] or data[1] or data[2] != _UNSIGNED_BYTE or not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise DataError(f"{name}: magic {data[:4].hex()} is not that of an IDX file of bytes")
    start = 4 + 4 * dimensions
    if len(data) < start:
        raise DataError(f"{name}: truncated: {len(data)} bytes, expected a {start}-byte header")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", dimensions, offset=4))
    expected = start + math.prod(shape)
    if len(data) != expected:
        wrong = "truncated" if len(data) < expected else "trailing bytes"
        raise DataError(f"{name}: {wrong}: {len(data)} bytes, shape {shape} needs {expected}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def inflate(data: bytes, *, limit: int, name: str = "gzip data") -> bytes:
    """Decompress one gzip member of at most ``limit`` bytes.

    Raises DataError for corruption, truncation, trailing bytes or a larger result, which is
    never produced.
    """
    stream = zlib.decompressobj(_GZIP_WINDOW)
    try:
        plain = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise DataError(f"{name}: not a valid gzip file: fetch it again") from error
    if len(plain) > limit:
        raise DataError(f"{name}: inflates to more than the {limit} bytes expected")
    if not stream.eof:
        raise DataError(f"{name}: truncated gzip file: fetch it again")
    if stream.unused_data:
        raise DataError(f"{name}: {len(stream.unused_data)} trailing bytes after the gzip data")
    return plain


def read_idx_bytes(path: Path, *, limit: int) -> bytes:
    """The uncompressed bytes of an IDX file, gzip'd (``.gz``) or not; at most ``limit``.

    Raises DataError if the file cannot be read or is larger.
    """
    try:
        with path.open("rb") as file:
            # Deflate never expands by more than a few bytes per block, so neither form of a
            # well-formed file is longer than this.
            data = file.read(limit + (1 << 16) + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"cannot read {path}: {reason.lower()}") from error
    if path.suffix == ".gz":
        return inflate(data, limit=limit, name=path.name)
    if len(data) > limit:
        raise DataError(f"{path.name}: larger than the {limit} bytes expected")
    return data
