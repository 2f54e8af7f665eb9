"""The envelope: exact round trips, and strict refusal of everything else."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from he_infer import wire
from he_infer.errors import MismatchError, TooLargeError, VersionError, WireError
from he_infer.params import CKKSParams, choose_primes
from he_infer.wire.types import check_residues, key_moduli, level_moduli

PARAMS = CKKSParams.from_bits(4096, [26, 20], special_bits=27)
SCALE = 2.0**20
PLAN, KEYS = "1f" * 32, "2e" * 32
QUERY = wire.Expected.query(PARAMS, plan_digest=PLAN, keys_digest=KEYS, count=2, scale=SCALE)
REPLY = wire.Expected.reply(PARAMS, plan_digest=PLAN, keys_digest=KEYS, count=1, scale=SCALE)
EVALUATION = wire.Expected.evaluation_keys(PARAMS, wire.KeyLevels.full(PARAMS, [1, -1]))
ALL = {"query": QUERY, "reply": REPLY, "keys": EVALUATION}
SLOW_OK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def _residues(rng: np.random.Generator, moduli: tuple[int, ...], *shape: int) -> np.ndarray:
    rows = [rng.integers(0, q, (*shape, PARAMS.n), dtype=np.uint64) for q in moduli]
    return np.stack(rows, axis=len(shape))


def _frames(expected: wire.Expected, seed: int) -> list[wire.Frame]:
    rng = np.random.default_rng(seed)
    moduli = level_moduli(PARAMS, expected.level)
    if expected.kind is wire.Kind.QUERY:
        return [
            wire.SeededCiphertext(c0=_residues(rng, moduli), seed=rng.bytes(64), scale=SCALE)
            for _ in range(expected.count)
        ]
    if expected.kind is wire.Kind.REPLY:
        return [wire.Ciphertext(residues=_residues(rng, moduli, 2), scale=SCALE)]
    moduli, digits = key_moduli(PARAMS), len(PARAMS.primes)
    public = wire.SeededPublicKey(b=_residues(rng, moduli), seed=rng.bytes(64))
    others = [
        wire.SeededKeySwitchKey(
            b=_residues(rng, moduli, digits), seeds=tuple(rng.bytes(64) for _ in range(digits))
        )
        for _ in range(expected.count - 1)
    ]
    return [public, *others]


BYTES = {name: wire.write_envelope(_frames(e, 5), e) for name, e in ALL.items()}


def _assert_in_range(frames: list[wire.Frame]) -> None:
    for frame in frames:
        frame.check(PARAMS)


@given(
    width=st.integers(17, 60),
    other=st.integers(17, 60),
    count=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
@SLOW_OK
def test_packing_round_trips_at_every_width(width: int, other: int, count: int, seed: int) -> None:
    widths = [max(width, 20), max(other, 20), max(width, 20)]
    moduli = tuple(choose_primes(4096, widths))
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.integers(0, q, (count, 4096), dtype=np.uint64) for q in moduli], axis=1)
    packed = wire.pack_residues(rows, moduli)
    assert len(packed) == count * wire.packed_bytes(moduli, 4096)
    np.testing.assert_array_equal(wire.unpack_residues(packed, count, moduli, 4096), rows)


def test_packing_equals_a_naive_bit_string() -> None:
    moduli = tuple(choose_primes(4096, [29, 34]))
    rng = np.random.default_rng(0)
    rows = np.stack([rng.integers(0, q, 4096, dtype=np.uint64) for q in moduli])
    value, offset = 0, 0
    for row, q in zip(rows, moduli, strict=True):
        for residue in row:
            value |= int(residue) << offset
            offset += q.bit_length()
    assert wire.pack_residues(rows[None], moduli) == value.to_bytes(offset // 8, "little")


@pytest.mark.parametrize("name", ALL)
def test_envelopes_round_trip(name: str) -> None:
    expected, data = ALL[name], BYTES[name]
    assert len(data) == expected.total_bytes
    frames = wire.read_envelope(data, expected)
    _assert_in_range(frames)
    assert wire.write_envelope(frames, expected) == data


@pytest.mark.parametrize("name", ALL)
@given(data=st.data())
@SLOW_OK
def test_a_stream_in_any_chunks_gives_the_same_frames(name: str, data: st.DataObject) -> None:
    expected, whole = ALL[name], BYTES[name]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    reader = wire.FrameReader(expected)
    frames: list[wire.Frame] = []
    for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        frames += reader.feed(whole[start:stop])
    reader.finish()
    assert reader.complete and wire.write_envelope(frames, expected) == whole


@pytest.mark.parametrize("name", ALL)
def test_every_flipped_header_byte_is_refused(name: str) -> None:
    for position in range(wire.HEADER_BYTES):
        for mask in (0x01, 0x80, 0xFF):
            changed = bytearray(BYTES[name])
            changed[position] ^= mask
            with pytest.raises(WireError):
                wire.read_envelope(changed, ALL[name])


@pytest.mark.parametrize("name", ALL)
@given(data=st.data())
@SLOW_OK
def test_flipped_payload_bytes_stay_in_range_or_are_refused(name: str, data: st.DataObject) -> None:
    changed = bytearray(BYTES[name])
    flips = st.lists(
        st.tuples(st.integers(wire.HEADER_BYTES, len(changed) - 1), st.integers(1, 255)),
        min_size=1,
        max_size=8,
    )
    for position, mask in data.draw(flips):
        changed[position] ^= mask
    try:
        frames = wire.read_envelope(changed, ALL[name])
    except WireError:
        return
    _assert_in_range(frames)
    # One packed form per array: what parses is written back bit for bit.
    assert wire.write_envelope(frames, ALL[name]) == bytes(changed)


@pytest.mark.parametrize("name", ALL)
@given(data=st.data())
@SLOW_OK
def test_truncated_and_extended_envelopes_are_refused(name: str, data: st.DataObject) -> None:
    whole = BYTES[name]
    length = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(WireError):
        wire.read_envelope(whole[:length], ALL[name])
    tail = data.draw(st.binary(min_size=1, max_size=40))
    with pytest.raises(WireError, match="trailing"):
        wire.read_envelope(whole + tail, ALL[name])


@given(data=st.binary(max_size=2 * wire.HEADER_BYTES))
@SLOW_OK
def test_arbitrary_bytes_raise_wire_errors_only(data: bytes) -> None:
    for expected in ALL.values():
        with pytest.raises(WireError):
            wire.read_envelope(data, expected)


def test_mismatches_have_their_own_types() -> None:
    def read_as(**changes: object) -> None:
        settings_: dict[str, object] = {
            "plan_digest": PLAN,
            "keys_digest": KEYS,
            "count": 2,
            "scale": SCALE,
            **changes,
        }
        expected = wire.Expected.query(PARAMS, **settings_)  # type: ignore[arg-type]
        wire.read_envelope(BYTES["query"], expected)

    with pytest.raises(MismatchError, match="another plan"):
        read_as(plan_digest="00" * 32)
    with pytest.raises(MismatchError, match="other evaluation keys"):
        read_as(keys_digest="00" * 32)
    with pytest.raises(TooLargeError):
        read_as(count=1)
    with pytest.raises(WireError, match="scale"):
        read_as(scale=float(np.nextafter(SCALE, np.inf)))
    other = CKKSParams.from_bits(4096, [27, 20], special_bits=26)
    with pytest.raises(MismatchError, match="parameters"):
        wire.read_envelope(
            BYTES["query"],
            wire.Expected.query(other, plan_digest=PLAN, keys_digest=KEYS, count=2, scale=SCALE),
        )
    with pytest.raises(MismatchError, match="rotation steps"):
        wire.read_envelope(
            BYTES["keys"],
            wire.Expected.evaluation_keys(PARAMS, wire.KeyLevels.full(PARAMS, [1, 2])),
        )
    newer = bytearray(BYTES["query"])
    struct.pack_into("<H", newer, 8, wire.FORMAT_VERSION + 1)
    with pytest.raises(VersionError, match="format 2, got 3"):
        wire.read_envelope(newer, QUERY)
    with pytest.raises(TooLargeError, match="limit"):
        wire.FrameReader(QUERY, limit_bytes=QUERY.total_bytes - 1)


def test_a_residue_equal_to_its_prime_is_refused() -> None:
    frames = _frames(REPLY, 1)
    assert isinstance(frames[0], wire.Ciphertext)
    moduli = level_moduli(PARAMS, 0)
    data = bytearray(wire.write_envelope(frames, REPLY))
    width = moduli[0].bit_length()
    first = int.from_bytes(data[wire.HEADER_BYTES : wire.HEADER_BYTES + 8], "little")
    for residue, allowed in ((moduli[0] - 1, True), (moduli[0], False)):
        word = first >> width << width | residue
        data[wire.HEADER_BYTES : wire.HEADER_BYTES + 8] = word.to_bytes(8, "little")
        if allowed:
            check_residues(frames[0].residues, moduli, PARAMS.n)
            wire.read_envelope(data, REPLY)
        else:
            with pytest.raises(WireError, match="not below its prime"):
                wire.read_envelope(data, REPLY)


def test_a_refused_reader_stays_refused() -> None:
    reader = wire.FrameReader(QUERY)
    with pytest.raises(WireError):
        reader.feed(bytes(wire.HEADER_BYTES))
    with pytest.raises(WireError, match="refused already"):
        reader.feed(BYTES["query"])
    with pytest.raises(WireError, match="refused already"):
        reader.finish()


def test_memory_follows_what_is_expected_not_what_is_declared() -> None:
    forged = bytearray(BYTES["query"][: wire.HEADER_BYTES])
    struct.pack_into("<I", forged, 16, 2**32 - 1)
    struct.pack_into("<Q", forged, 32, 2**60)
    tracemalloc.start()
    try:
        reader = wire.FrameReader(QUERY)
        with pytest.raises(TooLargeError):
            reader.feed(bytes(forged) + bytes(1 << 20))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 << 20  # the megabyte given, twice over at most


def test_the_format_has_no_room_for_another_object() -> None:
    for name in ("query", "keys"):
        with pytest.raises(WireError):
            wire.write_envelope(_frames(REPLY, 1) * ALL[name].count, ALL[name])
    with pytest.raises(WireError, match="expected a SeededPublicKey"):
        wire.write_envelope(list(reversed(_frames(EVALUATION, 1))), EVALUATION)
