"""What a client packs is what the plan reads; bad queries and hostile specs are refused."""

from __future__ import annotations

import copy
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from he_infer.errors import FileFormatError, InputError, OutOfRangeError
from he_infer.params import CKKSParams
from he_infer.plan.client_spec import ClientSpec, OutOfRangeWarning
from he_infer.plan.layout import dense_layout, spread_layout
from he_infer.plan.plan import input_slots
from he_infer.wire.key_levels import KeyLevels

PARAMS = CKKSParams.from_bits(4096, [36, 30], special_bits=36)


def keys_json(rotations: object) -> dict[str, object]:
    return {"public": 0, "relin": 1, "rotations": rotations}


def spec_for(batch: int, *, shape: tuple[int, ...] = (2, 3), outputs: int = 4) -> ClientSpec:
    slots = PARAMS.slots // batch
    size = int(np.prod(shape))
    out = dense_layout(outputs, slots)
    return ClientSpec(
        model="test.model-1",
        plan_digest="ab" * 32,
        params=PARAMS,
        input_shape=shape,
        n_outputs=outputs,
        batch=batch,
        input_slots=input_slots(dense_layout(size, slots), np.arange(size)),
        output_slots=out.positions.astype(np.int32),
        n_output_ciphertexts=out.ciphertexts,
        input_scale=2.0**30,
        output_scale=2.0**28,
        output_level=0,
        key_levels=KeyLevels(public=0, relin=1, rotations=((1, 1), (2, 0), (64, 1))),
        input_range=(-1.0, 1.0),
    )


SPEC = spec_for(4)


@settings(max_examples=40, deadline=None)
@given(batch=st.sampled_from([1, 2, 64, 1024, 2048]), seed=st.integers(0, 1000), data=st.data())
def test_pack_puts_each_record_beside_the_others(
    batch: int, seed: int, data: st.DataObject
) -> None:
    spec = spec_for(batch)
    count = data.draw(st.integers(1, batch))
    records = np.random.default_rng(seed).uniform(-1, 1, (count, 2, 3))
    slots = spec.pack(records)
    assert slots.shape == (spec.n_input_ciphertexts, PARAMS.slots)
    seen = set()
    for ciphertext, row in enumerate(spec.input_slots):
        for slot, feature in enumerate(row):
            content = slots[ciphertext, slot * batch : (slot + 1) * batch]
            expected = np.zeros(batch)
            if feature >= 0:
                expected[:count] = records.reshape(count, -1)[:, feature]
                seen.add(int(feature))
            np.testing.assert_array_equal(content, expected)
    assert seen == set(range(6))


@pytest.mark.parametrize("batch", [1, 4, 1024, 2048])
def test_unpack_reads_each_output_of_each_record(batch: int) -> None:
    spec = spec_for(batch)
    slots = np.arange(spec.n_output_ciphertexts * PARAMS.slots, dtype=np.float64)
    got = spec.unpack(slots.reshape(spec.n_output_ciphertexts, -1), min(3, batch))
    for record in range(min(3, batch)):
        np.testing.assert_array_equal(got[record], spec.output_slots * batch + record)


@pytest.mark.parametrize("shape", [(2, 2048), (1, 2047), (1,)])
@pytest.mark.parametrize("records", [1])
def test_unpack_refuses_other_shapes(shape: tuple[int, ...], records: int) -> None:
    with pytest.raises(InputError, match="expected slots"):
        SPEC.unpack(np.zeros(shape), records)


@pytest.mark.parametrize("records", [0, -1, 5])
def test_unpack_refuses_other_record_counts(records: int) -> None:
    with pytest.raises(InputError, match="records"):
        SPEC.unpack(np.zeros((1, 2048)), records)


BAD_QUERIES: dict[str, tuple[Any, str]] = {
    "no batch dimension": (np.zeros((2, 3)), "shape"),
    "another shape": (np.zeros((1, 3, 2)), "shape"),
    "flattened": (np.zeros((1, 6)), "shape"),
    "a number": (1.0, "shape"),
    "no records": (np.zeros((0, 2, 3)), "at least one record"),
    "too many records": (np.zeros((5, 2, 3)), "5 records in a query that carries 4"),
    "NaN": (np.full((1, 2, 3), np.nan), "NaN"),
    "infinity": (np.full((1, 2, 3), -np.inf), "infinite"),
    "complex": (np.zeros((1, 2, 3), dtype=complex), "dtype complex128"),
    "text": (np.full((1, 2, 3), "1"), "dtype"),
    "objects": (np.full((1, 2, 3), None), "dtype object"),
}


@pytest.mark.parametrize("name", BAD_QUERIES)
def test_bad_queries_are_input_errors(name: str) -> None:
    records, message = BAD_QUERIES[name]
    with pytest.raises(InputError, match=message) as refused:
        SPEC.pack(records)
    assert not isinstance(refused.value, OutOfRangeError)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.uint8, np.bool_])
def test_real_dtypes_are_taken(dtype: type[np.generic]) -> None:
    records = np.ones((1, 2, 3)).astype(dtype)
    np.testing.assert_array_equal(SPEC.pack(records), SPEC.pack(np.ones((1, 2, 3))))
    SPEC.pack([[[0, 1, 0], [1, 0, 1]]])


def test_values_outside_the_range_are_told_how_far() -> None:
    records = np.zeros((2, 2, 3))
    records[1, 1, 1] = -3.5
    with pytest.warns(OutOfRangeWarning, match=r"up to 2\.5 outside .*\[-1, 1\]"):
        slots = SPEC.pack(records)
    assert -3.5 in slots
    with pytest.raises(OutOfRangeError, match=r"up to 2\.5 outside"):
        SPEC.pack(records, strict=True)
    SPEC.pack(np.full((1, 2, 3), 1 + 1e-7), strict=True)  # rounding is not an excursion


# -- JSON ----------------------------------------------------------------------------------


def as_json(spec: ClientSpec) -> dict[str, Any]:
    """Through text, as a client receives it."""
    found: dict[str, Any] = json.loads(json.dumps(spec.to_json()))
    return found


def repeated_spec() -> ClientSpec:
    layout = spread_layout(6, 512, name="repeated")
    assert layout is not None
    data = spec_for(4).to_json()
    spec = ClientSpec.from_json(data)
    fields = {name: getattr(spec, name) for name in ClientSpec.__slots__}
    return ClientSpec(**{**fields, "input_slots": input_slots(layout, np.arange(6))})


@pytest.mark.parametrize(
    "spec", [spec_for(1), spec_for(4), spec_for(2048), repeated_spec()], ids=lambda s: str(s.batch)
)
def test_json_round_trip(spec: ClientSpec) -> None:
    again = ClientSpec.from_json(as_json(spec))
    assert again.to_json() == spec.to_json()
    np.testing.assert_array_equal(again.input_slots, spec.input_slots)
    np.testing.assert_array_equal(again.output_slots, spec.output_slots)
    assert again.input_slots.dtype == np.int32


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-1, 5), min_size=512, max_size=512))
def test_any_slot_assignment_survives_run_lengths(row: list[int]) -> None:
    data = as_json(SPEC)
    spec = ClientSpec.from_json(data)
    fields = {name: getattr(spec, name) for name in ClientSpec.__slots__}
    odd = ClientSpec(**{**fields, "input_slots": np.array([row], dtype=np.int32)})
    np.testing.assert_array_equal(ClientSpec.from_json(as_json(odd)).input_slots, [row])


HUGE = 10**15
HOSTILE: dict[str, dict[str, Any]] = {
    "unknown version": {"version": 3},
    "version as text": {"version": "1"},
    "no version": {"version": None},
    "huge batch": {"batch": HUGE},
    "batch that does not divide": {"batch": 3},
    "batch 0": {"batch": 0},
    "negative batch": {"batch": -4},
    "fractional batch": {"batch": 4.0},
    "batch as a bool": {"batch": True},
    "huge run": {"input_slots": [[[0, 1, HUGE]]]},
    "run of two billion": {"input_slots": [[[0, 0, 2**31 - 1]]]},
    "run too long by one": {"input_slots": [[[0, 0, 513]]]},
    "run too short": {"input_slots": [[[0, 0, 511]]]},
    "negative run": {"input_slots": [[[0, 0, -1], [0, 0, 513]]]},
    "empty run": {"input_slots": [[[0, 0, 0], [0, 0, 512]]]},
    "run that leaves the features": {"input_slots": [[[0, 1, 512]]]},
    "run below −1": {"input_slots": [[[-2, 0, 512]]]},
    "run with a huge step": {"input_slots": [[[0, 2**31 - 1, 512]]]},
    "run with four numbers": {"input_slots": [[[0, 0, 512, 0]]]},
    "run of text": {"input_slots": [["abc"]]},
    "too many runs": {"input_slots": [[[0, 0, 1]] * 100_000]},
    "runs as an object": {"input_slots": [{"0": 1}]},
    "no ciphertexts": {"input_slots": []},
    "many ciphertexts": {"input_slots": [[[0, 0, 512]]] * 20_000},
    "slots of a gigabyte": {"input_slots": [[[0, 0, 512]]] * 16_384},
    "negative shape": {"input_shape": [-2, -3]},
    "shape with zero": {"input_shape": [0]},
    "no shape": {"input_shape": []},
    "five dimensions": {"input_shape": [1] * 5},
    "huge shape": {"input_shape": [2**30, 2**30]},
    "shape as text": {"input_shape": "23"},
    "no outputs": {"n_outputs": 0, "output_slots": []},
    "outputs that contradict": {"n_outputs": 5},
    "huge outputs": {"n_outputs": 2**31 - 1},
    "negative output slot": {"output_slots": [-1, 0, 1, 2]},
    "output slot beyond": {"output_slots": [0, 1, 2, 512]},
    "output slots nested": {"output_slots": [[0], [1], [2], [3]]},
    "no output ciphertexts": {"n_output_ciphertexts": 0},
    "huge output ciphertexts": {"n_output_ciphertexts": 2**30},
    "NaN scale": {"input_scale": float("nan")},
    "infinite scale": {"output_scale": float("inf")},
    "negative scale": {"input_scale": -(2.0**30)},
    "scale zero": {"output_scale": 0},
    "huge whole scale": {"input_scale": 10**400},
    "scale as a list": {"input_scale": [1.0]},
    "output level beyond": {"output_level": 2},
    "negative output level": {"output_level": -1},
    "step beyond": {"key_levels": keys_json([[2048, 1]])},
    "negative step": {"key_levels": keys_json([[-1, 1]])},
    "repeated step": {"key_levels": keys_json([[1, 1], [1, 1]])},
    "a key beyond the chain": {"key_levels": keys_json([[1, 2]])},
    "steps as a number": {"key_levels": keys_json(5)},
    "keys as a list": {"key_levels": [1, 2]},
    "reversed range": {"input_range": [1.0, -1.0]},
    "NaN range": {"input_range": [float("nan"), 1.0]},
    "short range": {"input_range": [0.0]},
    "model with a path": {"model": "../../etc/passwd"},
    "model with a line break": {"model": "a\n"},
    "empty model": {"model": ""},
    "long model": {"model": "a" * 101},
    "digest in capitals": {"plan_digest": "AB" * 32},
    "short digest": {"plan_digest": "ab"},
    "insecure parameters": {"params": {**PARAMS.to_json(), "n": 1024}},
    "parameters as a list": {"params": []},
    "parameters missing": {"params": None},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_json_is_refused_without_large_allocations(name: str) -> None:
    data = {**as_json(SPEC), **copy.deepcopy(HOSTILE[name])}
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError):
            ClientSpec.from_json(data)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("missing", sorted(SPEC.to_json()))
def test_every_field_is_required(missing: str) -> None:
    data = as_json(SPEC)
    del data[missing]
    with pytest.raises(FileFormatError):
        ClientSpec.from_json(data)


@pytest.mark.parametrize("data", [None, [], "text", 3, {}])
def test_json_that_is_no_object(data: Any) -> None:
    with pytest.raises(FileFormatError):
        ClientSpec.from_json(data)
