"""Layouts place every feature once, refuse what contradicts itself, and repeat as they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from he_infer.errors import PackingError
from he_infer.plan.layout import (
    Grid,
    Layout,
    dense_layout,
    grid_layout,
    power_of_two,
    spread_layout,
)
from he_infer.plan.plan import by_slot, input_slots


@given(st.integers(1, 1 << 20))
def test_power_of_two_is_the_smallest(size: int) -> None:
    found = power_of_two(size)
    assert found >= size and found.bit_count() == 1 and (found == 1 or found < 2 * size)


@given(size=st.integers(1, 300), slots=st.sampled_from([1, 2, 16, 64, 256]))
def test_dense_features_lie_in_a_row(size: int, slots: int) -> None:
    layout = dense_layout(size, slots)
    np.testing.assert_array_equal(layout.positions, np.arange(size))
    assert layout.ciphertexts == -(-size // slots)
    where = input_slots(layout, np.arange(size))
    assert where.shape == (layout.ciphertexts, slots)
    assert set(where.reshape(-1).tolist()) - {-1} == set(range(size))


@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5)),
    grid=st.builds(
        Grid, block=st.sampled_from([4, 16, 64]), row=st.integers(1, 9), column=st.integers(1, 3)
    ),
)
def test_a_grid_keeps_distances(shape: tuple[int, int, int], grid: Grid) -> None:
    layout = grid_layout(shape, grid, 64, name="grid")
    _, height, width = shape
    fits = (height - 1) * grid.row + (width - 1) * grid.column < grid.block <= 64
    assert (layout is not None) == fits
    if layout is None:
        return
    at = layout.positions.reshape(shape)
    assert (np.diff(at, axis=2) == grid.column).all() and (np.diff(at, axis=1) == grid.row).all()
    assert at.max() < layout.ciphertexts * layout.slots


def test_a_spread_layout_repeats_each_block_in_a_row() -> None:
    layout = spread_layout(4, 16, name="spread")
    assert layout is not None
    assert input_slots(layout, np.arange(4)).tolist() == [np.repeat(np.arange(4), 4).tolist()]
    blocks = spread_layout(2, 16, block=2, name="spread")
    assert blocks is not None
    expected = [0, 1] * 4 + [2, 3] * 4
    assert input_slots(blocks, np.arange(4)).tolist() == [expected]
    assert spread_layout(9, 16, name="full") is None


def test_short_contents_are_repeated_and_long_ones_are_not() -> None:
    layout = dense_layout(3, 16)
    assert input_slots(layout, np.array([7, 8, 9])).tolist() == [[7, 8, 9, -1] * 4]
    assert by_slot(np.array([1.0, 2.0, 3.0]), layout).tolist() == [[1, 2, 3, 0]]


@pytest.mark.parametrize(
    ("period", "ciphertexts", "last", "message"),
    [
        (32, 1, 0, "period"),
        (3, 1, 0, "period"),
        (8, 2, 0, "repeat"),
        (16, 1, 16, "outside"),
        (16, 2, 32, "outside"),
    ],
)
def test_layouts_that_contradict_themselves(
    period: int, ciphertexts: int, last: int, message: str
) -> None:
    with pytest.raises(PackingError, match=message):
        Layout(
            name="bad",
            slots=16,
            period=period,
            ciphertexts=ciphertexts,
            positions=np.array([0, last]),
        )


def test_equal_keys_mean_interchangeable_layouts() -> None:
    grid = Grid(block=4, row=2, column=1)
    as_grid = grid_layout((2, 2, 2), grid, 64, name="grid")
    assert as_grid is not None
    assert as_grid.key() == dense_layout(8, 64).key() != dense_layout(7, 64).key()
