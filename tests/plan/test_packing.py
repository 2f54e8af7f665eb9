"""A matrix between any two layouts is the naive product, on exact slots."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse

from he_infer.compiler.im2col import unroll
from he_infer.compiler.splits import best_split
from he_infer.params import CKKSParams
from he_infer.plan import ir
from he_infer.plan.layout import Grid, Layout, dense_layout, grid_layout, spread_layout
from he_infer.plan.packing import (
    Split,
    diagonals,
    dirty,
    entries,
    lane_counts,
    unique_rows,
    unique_rows_index,
    walk_steps,
)
from he_infer.plan.plan import by_slot, input_slots
from he_infer.plan.steps import AffineStep
from he_infer.runtime.backends.plain import PlainBackend
from he_infer.runtime.backends.seal import SealBackend
from he_infer.runtime.costs import CostModel
from he_infer.runtime.executor import EncodedWeights
from he_infer.runtime.kernels import Machine, run_step

PARAMS = CKKSParams.from_bits(4096, [36, 30], special_bits=36)
COST = CostModel()
FILLED = 32  # feature slots, so that tensors of a few dozen features fill several ciphertexts
SEEDS = st.integers(min_value=0, max_value=2**32 - 1)


@st.composite
def layouts(draw: st.DrawFn, slots: int = FILLED, *, spread: bool = False) -> Layout:
    """Dense, grid, strided grid or spread; one ciphertext or several."""
    kind = draw(st.sampled_from(["dense", "grid", "strided", *(["spread"] if spread else [])]))
    if kind == "dense":
        return dense_layout(draw(st.integers(1, 3 * slots)), slots)
    if kind == "spread":
        block = draw(st.sampled_from([1, 2, 4]))
        size = draw(st.integers(1, slots // block))
        found = spread_layout(size, slots, block=block, name="spread")
    else:
        height, width = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        stride = draw(st.integers(1, 2)) if kind == "strided" else 1
        row = stride * draw(st.integers(width, 5)) if kind == "strided" else width
        block = draw(st.sampled_from([4, 8, 16, 32]))
        grid = Grid(block=block, row=row, column=stride)
        shape = (draw(st.integers(1, 5)), height, width)
        found = grid_layout(shape, grid, slots, name=kind)
    assume(found is not None)
    assert found is not None
    return found


def random_matrix(rng: np.random.Generator, outputs: int, inputs: int) -> ir.Matrix:
    density = rng.choice([0.1, 0.5, 1.0])
    values = rng.normal(size=(outputs, inputs)) * (rng.random((outputs, inputs)) < density)
    return sparse.csr_array(values)


def split_for(rng: np.random.Generator) -> Split:
    return Split(modulus=1 << int(rng.integers(0, 6)), centred=bool(rng.integers(2)))


def place(values: ir.FloatArray, layout: Layout, batch: int) -> list[ir.FloatArray]:
    """(batch, features) → full slot vectors, as the client packs them."""
    where = input_slots(layout, np.arange(values.shape[1]))
    padded = np.concatenate([values, np.zeros((len(values), 1))], axis=1)
    return [padded[:, row].T.reshape(-1) for row in where]


def multiply(
    matrix: ir.Matrix,
    source: Layout,
    target: Layout,
    inputs: list[ir.FloatArray],
    *,
    batch: int,
    lanes: int,
    split: Split,
    bias: ir.FloatArray,
) -> ir.FloatArray:
    """Slots after one affine step on the plain backend: (ciphertexts, feature slots, batch)."""
    part = diagonals(entries(matrix, source, target, lanes=lanes), split)
    steps = {step * batch % PARAMS.slots for step in part.steps} - {0}
    backend = PlainBackend(PARAMS, steps=steps)  # refuses any rotation that was not announced
    step = AffineStep(
        name="a",
        sources=("x",),
        parts=(part,),
        bias=by_slot(bias, target if lanes == 1 else dirty(target)),
        level=1,
        scale=2.0**30,
    )
    machine = Machine(backend=backend, plaintexts=EncodedWeights(backend), batch=batch)
    fresh = [backend.encrypt(row, scale=2.0**30) for row in inputs]
    results = run_step(machine, step, [fresh])
    assert all(c.level == 0 and c.scale == pytest.approx(2.0**30) for c in results)
    assert max(abs(c.value.imag).max() for c in results) < 1e-12
    return np.stack([c.value.real.reshape(-1, batch) for c in results])


def assert_clean(slots: ir.FloatArray, layout: Layout, expected: ir.FloatArray) -> None:
    """Every slot is one period's copy of an output, or zero."""
    where = input_slots(layout, np.arange(expected.shape[1]))
    padded = np.concatenate([expected, np.zeros((len(expected), 1))], axis=1)
    wanted = np.stack([padded[:, row].T for row in where])
    np.testing.assert_allclose(slots, wanted, atol=1e-9)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), seed=SEEDS)
def test_any_matrix_between_any_layouts(data: st.DataObject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    batch = PARAMS.slots // FILLED
    source, target = data.draw(layouts(spread=True)), data.draw(layouts())
    matrix = random_matrix(rng, len(target.positions), len(source.positions))
    x, bias = rng.normal(size=(batch, matrix.shape[1])), rng.normal(size=matrix.shape[0])
    slots = multiply(
        matrix,
        source,
        target,
        place(x, source, batch),
        batch=batch,
        lanes=1,
        split=split_for(rng),
        bias=bias,
    )
    assert_clean(slots, target, (matrix @ x.T).T + bias)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=SEEDS)
def test_lanes_leave_the_outputs_in_place_and_the_next_layer_cleans_up(
    data: st.DataObject, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    batch = PARAMS.slots // FILLED
    source = dense_layout(data.draw(st.integers(1, 8)), FILLED)
    target = dense_layout(data.draw(st.integers(1, 8)), FILLED)
    counts = lane_counts(source, target.period)
    assume(len(counts) > 1)
    lanes = data.draw(st.sampled_from(counts[1:]))
    first = random_matrix(rng, len(target.positions), len(source.positions))
    x, bias = rng.normal(size=(batch, first.shape[1])), rng.normal(size=first.shape[0])
    hidden = multiply(
        first,
        source,
        target,
        place(x, source, batch),
        batch=batch,
        lanes=lanes,
        split=split_for(rng),
        bias=bias,
    )
    expected = (first @ x.T).T + bias
    np.testing.assert_allclose(hidden[0, target.positions].T, expected, atol=1e-9)

    last = data.draw(layouts())
    second = random_matrix(rng, len(last.positions), len(target.positions))
    slots = multiply(
        second,
        dirty(target),
        last,
        [hidden.reshape(-1)],
        batch=batch,
        lanes=1,
        split=split_for(rng),
        bias=np.zeros(second.shape[0]),
    )
    assert_clean(slots, last, (second @ expected.T).T)


@pytest.mark.parametrize("batch", [1, 2, 64, 1024, 2048])
def test_batches_are_interleaved_and_kept_apart(batch: int) -> None:
    rng = np.random.default_rng(batch)
    slots = PARAMS.slots // batch
    source, target = dense_layout(6, slots), dense_layout(5, slots)
    assert source.ciphertexts == -(-6 // slots)
    matrix = random_matrix(rng, 5, 6)
    x, bias = rng.normal(size=(batch, 6)), rng.normal(size=5)
    got = multiply(
        matrix,
        source,
        target,
        place(x, source, batch),
        batch=batch,
        lanes=1,
        split=Split(modulus=2, centred=True),
        bias=bias,
    )
    assert_clean(got, target, (matrix @ x.T).T + bias)


def test_the_throughput_layout_needs_no_rotation() -> None:
    source, target = dense_layout(6, 1), dense_layout(5, 1)
    part = diagonals(
        entries(random_matrix(np.random.default_rng(0), 5, 6), source, target),
        Split(modulus=1, centred=False),
    )
    assert part.steps == set() and part.targets == 5


def test_a_short_output_is_folded_rather_than_rotated() -> None:
    """784 → 10: ten outputs in a period of 16 need 16 diagonals and six folds, not 784."""
    source, target = dense_layout(784, 1024), dense_layout(10, 1024)
    found = entries(random_matrix(np.random.default_rng(0), 10, 784), source, target)
    assert len(np.unique(found.offset)) == 16
    assert found.folds == (16, 32, 64, 128, 256, 512)


def test_repeated_inputs_need_fewer_diagonals() -> None:
    matrix = sparse.csr_array(np.random.default_rng(0).normal(size=(16, 16)))
    target = dense_layout(16, 64)
    spread = spread_layout(16, 64, name="repeated")
    assert spread is not None and spread.spread == 4
    plain = entries(matrix, dense_layout(16, 64), target)
    repeated = entries(matrix, spread, target)
    assert len(np.unique(plain.offset)) == 16
    assert len(np.unique(repeated.offset)) == 4


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, data=st.data())
def test_unrolled_windows_compute_the_same_layer(seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    shape = (
        data.draw(st.integers(1, 3)),
        data.draw(st.integers(1, 3)),
        data.draw(st.integers(1, 3)),
    )
    inputs = data.draw(st.integers(1, 12))
    matrix = random_matrix(rng, int(np.prod(shape)), inputs)
    assume(matrix.nnz > 0)
    found = unroll(matrix, shape)
    assert found is not None
    assert found.matrix.shape == (matrix.shape[0], found.taps * found.windows)
    x = rng.normal(size=inputs)
    gathered = np.append(x, 0.0)[found.gather]
    np.testing.assert_allclose(found.matrix @ gathered, matrix @ x, atol=1e-12)
    # One rotation serves all windows: virtual feature (tap, w) feeds window w alone.
    rows, columns = sparse.coo_array(found.matrix).coords
    assert (rows % found.windows == columns % found.windows).all()


def test_layers_that_are_not_images_are_not_unrolled() -> None:
    assert unroll(sparse.csr_array(np.eye(4)), (4,)) is None


@settings(max_examples=60, deadline=None)
@given(
    offset=st.lists(st.integers(-500, 500), min_size=1, max_size=30),
    modulus=st.sampled_from([1, 2, 4, 16, 64]),
    centred=st.booleans(),
)
def test_baby_and_giant_steps_add_up(offset: list[int], modulus: int, centred: bool) -> None:
    wanted = np.array(offset)
    baby, giant = Split(modulus=modulus, centred=centred).apply(wanted)
    np.testing.assert_array_equal(baby + giant, wanted)
    assert (giant % modulus == 0).all()
    assert baby.min() >= (-(modulus // 2) if centred else 0) and baby.max() < modulus


@given(st.sets(st.integers(0, 60), max_size=12))
def test_chain_steps_lead_from_every_offset_to_zero(offsets: set[int]) -> None:
    steps = walk_steps(sorted(offsets))
    descending = sorted(offsets | {0}, reverse=True)
    assert steps == {high - low for high, low in itertools.pairwise(descending)}
    assert not offsets - {0} or sum(steps) >= 1


def test_a_progression_of_steps_needs_one_key() -> None:
    assert walk_steps([0, 28, 56, 84]) == {28}


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 4)), min_size=1, max_size=40))
def test_unique_rows_agrees_with_numpy(rows: list[tuple[int, int]]) -> None:
    table = np.array(rows)
    expected, index = np.unique(table, axis=0, return_inverse=True)
    found, where = unique_rows_index(table[:, 0], table[:, 1])
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(where, index.reshape(-1))
    np.testing.assert_array_equal(unique_rows(table[:, 0], table[:, 1]), expected)


def test_the_best_split_is_no_dearer_than_all_babies_or_all_giants() -> None:
    matrix = sparse.csr_array(np.random.default_rng(0).normal(size=(64, 64)))
    found = entries(matrix, dense_layout(64, 2048), dense_layout(64, 2048))
    split, price = best_split(found, n=4096, level=1, cost=COST)
    # Near the square root of 64 diagonals, or above it where baby steps share their digits.
    assert 4 <= split.modulus <= 32
    rotations = len(diagonals(found, split).babies) + len(diagonals(found, split).giants)
    assert rotations <= 36 and price < 64 * COST.key_switch_ms(4096, 1)


def test_without_hoisting_baby_and_giant_steps_are_balanced() -> None:
    matrix = sparse.csr_array(np.random.default_rng(0).normal(size=(64, 64)))
    found = entries(matrix, dense_layout(64, 2048), dense_layout(64, 2048))
    split, _ = best_split(found, n=4096, level=1, cost=SealBackend.costs)
    assert 4 <= split.modulus <= 16
