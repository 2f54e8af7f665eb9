"""Write the hostile corpus: ``python tests/vectors/make_hostile.py``.

Small files that each break one rule, in both directions, with a manifest that names the error
expected. Our own envelopes are built field by field, not by the library's writer, so that an
error in the writer cannot hide one in the reader. The TenSEAL objects hold throw-away keys and
differ from run to run; everything else is the same on every run.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import tenseal

from he_infer.params import CKKSParams
from he_infer.wire import FORMAT_VERSION

FOLDER: Final = Path(__file__).parent / "hostile"
PARAMS: Final = CKKSParams.from_bits(4096, [26], special_bits=27)
PLAN, KEYS = "1f" * 32, "2e" * 32
SCALE: Final = 2.0**20
COUNT: Final = 1
HEADER: Final = struct.Struct("<8sHBBHHIIdQ32s32s32s")
QUERY, REPLY = 1, 2
WIDTH: Final = PARAMS.primes[0].bit_length()
POLYNOMIAL_BYTES: Final = WIDTH * PARAMS.n // 8
SERVER, CLIENT = "client to server", "server to client"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One hostile file: who reads it, what it is read as, what must be raised, and why."""

    name: str
    direction: str
    data: bytes
    error: str
    why: str


def header(kind: int, /, **changes: Any) -> bytes:
    """A valid header of this kind, with the given fields replaced."""
    polynomials = 2 if kind == REPLY else 1
    fields: dict[str, Any] = {
        "magic": b"\x89HEI\r\n\x1a\n",
        "version": FORMAT_VERSION,
        "kind": kind,
        "size": 2,
        "level": 0,
        "zero": 0,
        "count": COUNT,
        "n": PARAMS.n,
        "scale": SCALE,
        "body": polynomials * POLYNOMIAL_BYTES + (64 if kind == QUERY else 0),
        "params": bytes.fromhex(PARAMS.digest),
        "plan": bytes.fromhex(PLAN),
        "keys": bytes.fromhex(KEYS),
    }
    assert changes.keys() <= fields.keys()
    return HEADER.pack(*(fields | changes).values())


def body(kind: int, *, residue: int = 1) -> bytes:
    """A frame whose every residue has the same value."""
    bits = np.array([residue >> k & 1 for k in range(WIDTH)], dtype=np.uint8)
    one = np.packbits(np.tile(bits, PARAMS.n), bitorder="little").tobytes()
    return bytes(64) + one if kind == QUERY else one + one


def common_cases(kind: int, direction: str, prefix: str) -> list[Case]:
    """What can be wrong with a query as well as with a reply."""

    def case(name: str, data: bytes, error: str, why: str) -> Case:
        return Case(
            name=f"{prefix}_{name}.bin", direction=direction, data=data, error=error, why=why
        )

    def head(name: str, error: str, why: str, **changes: Any) -> Case:
        return case(name, header(kind, **changes) + bytes(256), error, why)

    good = header(kind) + body(kind)
    other = bytes(32)
    return [
        head("scale_nan", "WireError", "scale NaN", scale=float("nan")),
        head("scale_inf", "WireError", "scale infinite", scale=float("inf")),
        head("scale_negative", "WireError", "scale -1", scale=-1.0),
        head("scale_2_200", "WireError", "scale 2^200", scale=2.0**200),
        head("scale_one_ulp", "WireError", "scale off by one bit", scale=np.nextafter(SCALE, 0)),
        head("size_3", "WireError", "three polynomials", size=3),
        head("size_0", "WireError", "no polynomials", size=0),
        head("level_1", "WireError", "a level that does not exist", level=1),
        head("degree_2_31", "WireError", "an absurd ring degree", n=2**31),
        head("body_2_60", "TooLargeError", "2^60 bytes announced", body=2**60),
        head("count_2000", "TooLargeError", "a flood of 2,000 ciphertexts", count=2000),
        head("count_1e6", "TooLargeError", "a million ciphertexts announced", count=10**6),
        head("count_2e8", "TooLargeError", "2e8 ciphertexts announced", count=2 * 10**8),
        head("count_0", "WireError", "no ciphertext at all", count=0),
        head("version_3", "VersionError", "a format version to come", version=FORMAT_VERSION + 1),
        head("kind_9", "WireError", "an unknown kind", kind=9),
        head("kind_keys", "WireError", "keys where ciphertexts belong", kind=3),
        head("reserved", "WireError", "a reserved field that is used", zero=1),
        head("magic", "WireError", "another magic", magic=b"\x89HEI\n\x1a\n\n"),
        head("other_params", "MismatchError", "made for other parameters", params=other),
        head("other_plan", "MismatchError", "made for another model", plan=other),
        head("other_keys", "MismatchError", "bound to other keys", keys=other),
        case(
            "residue_equals_prime",
            header(kind) + body(kind, residue=PARAMS.primes[0]),
            "WireError",
            "residues equal to their prime",
        ),
        case(
            "residue_all_ones",
            header(kind) + body(kind, residue=2**WIDTH - 1),
            "WireError",
            "residues above their prime",
        ),
        case("truncated", good[:-1], "WireError", "the last byte is missing"),
        case("header_only", header(kind), "WireError", "the frames are missing"),
        case("header_cut", header(kind)[:100], "WireError", "the header is incomplete"),
        case("trailing", good + b"\0", "WireError", "a byte too many"),
        case("empty", b"", "WireError", "nothing"),
    ]


def tenseal_cases() -> list[Case]:
    """Objects of TenSEAL and SEAL, which this library never parses."""
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=[26, 27])
    context.global_scale = 2.0**20
    context.generate_galois_keys()
    secret = context.serialize(save_public_key=False, save_secret_key=True, save_galois_keys=True)
    vector = tenseal.ckks_vector(context, [1.0]).serialize()
    sealed = vector[vector.index(b"\x5e\xa1\x10") :]
    foreign: list[tuple[str, bytes, str]] = [
        ("tenseal_context_with_secret", secret, "a TenSEAL context with its secret key"),
        (
            "tenseal_context_public",
            context.serialize(
                save_public_key=False,
                save_secret_key=False,
                save_galois_keys=False,
                save_relin_keys=False,
            ),
            "a TenSEAL context",
        ),
        ("tenseal_vector", vector, "a TenSEAL vector"),
        ("seal_zstd", sealed, "a compressed SEAL ciphertext"),
        ("seal_zstd_trailing", sealed + bytes(64), "a compressed SEAL object with trailing data"),
        ("base64_context", base64.b64encode(secret), "a TenSEAL context in base64"),
    ]
    found = []
    for prefix, direction in (("query", SERVER), ("reply", CLIENT)):
        found += [
            Case(
                name=f"{prefix}_{name}.bin",
                direction=direction,
                data=data,
                error="WireError",
                why=why,
            )
            for name, data, why in foreign
            # One direction is enough for the large files.
            if direction == SERVER or len(data) < 20_000
        ]
    return found


def main(report: Callable[[str], None] = print) -> None:
    """Write all files and the manifest."""
    cases = [
        *common_cases(QUERY, SERVER, "query"),
        *common_cases(REPLY, CLIENT, "reply"),
        *tenseal_cases(),
    ]
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.bin"):
        old.unlink()
    for case in cases:
        (FOLDER / case.name).write_bytes(case.data)
    manifest = {
        "expected": {
            "params": PARAMS.to_json(),
            "plan_digest": PLAN,
            "keys_digest": KEYS,
            "count": COUNT,
            "scale": SCALE,
        },
        "files": [
            {
                "name": case.name,
                "direction": case.direction,
                "error": case.error,
                "why": case.why,
                "bytes": len(case.data),
            }
            for case in cases
        ],
    }
    (FOLDER / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    report(f"{len(cases)} files, {sum(len(case.data) for case in cases)} bytes")


if __name__ == "__main__":
    main()
