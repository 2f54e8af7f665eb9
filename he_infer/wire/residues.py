"""Bit packing: each residue takes exactly the bit length of its prime, rows back to back.

    row i (prime of w bits):   | r0: w bits | r1: w bits | … | r(n−1) |      little-endian bits

A ring degree is a multiple of 64, so 64 residues fill exactly w words: rows end on a byte
boundary, there are no padding bits, and one array has exactly one packed form.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from he_infer.errors import WireError
from he_infer.wire.types import check_residues

_GROUP = 64  # residues that fill a whole number of 64-bit words at any width


def packed_bytes(moduli: tuple[int, ...], n: int) -> int:
    """Bytes of one polynomial of ``n`` coefficients under ``moduli``."""
    return sum(q.bit_length() for q in moduli) * n // 8


def pack_residues(polynomials: NDArray[np.uint64], moduli: tuple[int, ...]) -> bytes:
    """Pack uint64 (count, len(moduli), n), polynomial by polynomial; residues must be < q.

    Raises WireError if a residue is not below its prime: it would spill into the next one.
    """
    count, _, n = polynomials.shape
    check_residues(polynomials, moduli, n)
    out = np.empty((count, packed_bytes(moduli, n)), dtype=np.uint8)
    for first, last, width, start in _runs(moduli, n):
        words = _pack(polynomials[:, first:last].reshape(-1, _GROUP), width)
        stop = start + (last - first) * width * n // 8
        out[:, start:stop] = words.view(np.uint8).reshape(count, stop - start)
    return out.tobytes()


def unpack_residues(
    data: bytes | bytearray | memoryview, count: int, moduli: tuple[int, ...], n: int
) -> NDArray[np.uint64]:
    """Unpack ``count`` polynomials: uint64 (count, len(moduli), n), every residue below q.

    Raises WireError if the length is not exact or a residue is not below its prime.
    """
    each = packed_bytes(moduli, n)
    if len(data) != count * each:
        raise WireError(f"expected {count * each} bytes of residues, got {len(data)}")
    packed = np.frombuffer(data, dtype=np.uint8).reshape(count, each)
    out = np.empty((count, len(moduli), n), dtype=np.uint64)
    for first, last, width, start in _runs(moduli, n):
        stop = start + (last - first) * width * n // 8
        words = np.ascontiguousarray(packed[:, start:stop]).view("<u8").reshape(-1, width)
        out[:, first:last] = _unpack(words, width).reshape(count, last - first, n)
    check_residues(out, moduli, n)
    return out


def _runs(moduli: tuple[int, ...], n: int) -> Iterator[tuple[int, int, int, int]]:
    """Neighbouring rows of one width: (first row, row after, bits, byte offset)."""
    first, offset = 0, 0
    while first < len(moduli):
        width = moduli[first].bit_length()
        last = first
        while last < len(moduli) and moduli[last].bit_length() == width:
            last += 1
        yield first, last, width, offset
        offset += (last - first) * width * n // 8
        first = last


def _pack(groups: NDArray[np.uint64], width: int) -> NDArray[np.uint64]:
    """(groups, 64) residues to (groups, width) words."""
    # One contiguous row per position within a group: 64 vector operations instead of n.
    values = np.ascontiguousarray(groups.T)
    words = np.zeros((width, len(groups)), dtype=np.uint64)
    for position in range(_GROUP):
        word, shift = divmod(position * width, 64)
        words[word] |= values[position] << np.uint64(shift)
        if shift + width > 64:
            words[word + 1] |= values[position] >> np.uint64(64 - shift)
    return np.ascontiguousarray(words.T).astype("<u8", copy=False)


def _unpack(words: NDArray[np.uint64], width: int) -> NDArray[np.uint64]:
    """(groups, width) words to (groups, 64) residues."""
    padded = np.zeros((width + 1, len(words)), dtype=np.uint64)
    padded[:width] = words.T
    word, shift = np.divmod(np.arange(_GROUP) * width, 64)
    low = shift.astype(np.uint64)[:, None]
    # What the next word adds beyond a residue's bits is masked; a shift by 64 gives zero.
    values = padded[word] >> low
    values |= padded[word + 1] << (np.uint64(64) - low)
    values &= np.uint64((1 << width) - 1)
    return np.ascontiguousarray(values.T)
