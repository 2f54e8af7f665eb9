"""The fuzzing process: mutated envelopes into the strict parser under a memory limit.

Mutations know the structure: header fields take edge values, digests and lengths are swapped,
frames are cut, doubled and shuffled, residues are set to and beyond their primes.
"""

from __future__ import annotations

import json
import random
import resource
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np

from he_infer import wire
from he_infer.errors import WireError
from he_infer.params import CKKSParams

_FIELDS = (
    ("<H", 8),
    ("<B", 10),
    ("<B", 11),
    ("<H", 12),
    ("<H", 14),
    ("<I", 16),
    ("<I", 20),
    ("<d", 24),
    ("<Q", 32),
)
_EDGES = (0, 1, 2, 3, 255, 256, 4096, 65535, 2**31, 2**32 - 1, 2**60, 2**64 - 1)
_SCALES = (0.0, -1.0, float("nan"), float("inf"), 2.0**200, 2.0**30, 2.0**29)


def main(cases: int, ceiling_mb: int) -> None:
    rng = random.Random(20)
    params = CKKSParams.from_bits(4096, [30], special_bits=31)
    digests: Any = {"plan_digest": "a" * 64, "keys_digest": "b" * 64}
    kinds = [
        wire.Expected.query(params, count=2, scale=2.0**20, **digests),
        wire.Expected.reply(params, count=2, scale=2.0**20, **digests),
        wire.Expected.evaluation_keys(params, wire.KeyLevels.full(params, [1])),
    ]
    # Residues of zero are valid, so a mutation of the header is all that is wrong.
    sound = [k.header.to_bytes() + bytes(k.body_bytes) for k in kinds]
    memory_limit(ceiling_mb)
    refused = untyped = 0
    for index in range(cases):
        which = index % len(kinds)
        data = mutate(sound[which], rng, kinds[which])
        try:
            wire.read_envelope(data, kinds[which], limit_bytes=1 << 24)
        except WireError:
            refused += 1
        except Exception:
            untyped += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cases": cases, "refused": refused, "untyped": untyped, "peak_mb": peak}))


def mutate(data: bytes, rng: random.Random, expected: wire.Expected) -> bytes:
    """One to three mutations of a sound envelope."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        choice = rng.randrange(8)
        if choice <= 2:
            form, place = rng.choice(_FIELDS)
            if form == "<d":
                struct.pack_into(form, changed, place, rng.choice(_SCALES))
            else:
                value = rng.choice(_EDGES) & ((1 << (8 * struct.calcsize(form))) - 1)
                struct.pack_into(form, changed, place, value)
        elif choice == 3:  # a digest
            place = rng.choice((40, 72, 104)) + rng.randrange(32)
            changed[place] ^= 1 << rng.randrange(8)
        elif choice == 4:  # cut, within the header as often as behind it
            cut = (
                rng.randrange(wire.HEADER_BYTES)
                if rng.random() < 0.5
                else rng.randrange(len(changed))
            )
            return bytes(changed[:cut])
        elif choice == 5:  # longer
            changed += rng.randbytes(rng.choice((1, 64, 5000)))
        elif choice == 6:  # residues beyond their primes
            place = rng.randrange(wire.HEADER_BYTES, len(changed) - 16)
            changed[place : place + 16] = b"\xff" * 16
        else:  # two frames swapped, or one where another belongs
            lengths = expected.frame_lengths
            a, b = rng.sample(range(len(lengths)), 2)
            starts = np.concatenate([[0], np.cumsum(lengths)]) + wire.HEADER_BYTES
            piece = bytes(changed[starts[a] : starts[a + 1]])
            changed[starts[b] : starts[b + 1]] = piece
        if len(changed) <= wire.HEADER_BYTES + 32:
            break
    return bytes(changed)


def memory_limit(megabytes: int) -> None:
    """Limit this process's address space beyond what it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
