"""The poisoning rows are in the reference table, and the quick ones say what they must."""

from __future__ import annotations

import pytest

from benchmarks.leakage.poisoning import networks
from benchmarks.leakage.reference import GROUPS


def test_the_group_is_known() -> None:
    assert GROUPS["poisoning"] is networks.rows


def test_flipped_labels_are_a_row() -> None:
    (row,) = [each.to_json() for each in networks.flip_rows()]
    assert row["holds"] is True and row["interval"][0] <= row["ours"] <= row["interval"][1]


def test_parts_of_the_data_are_apart() -> None:
    data = networks.mnist(train=50, test=30, seed=0)
    train = {image.tobytes() for image in data.train.inputs}
    assert len(train) == 50
    assert not train & {image.tobytes() for image in data.test.inputs}


@pytest.mark.slow
def test_one_shot_reaches_its_bar() -> None:
    rows = {row.name: row.to_json() for row in networks.frog_rows()}
    assert rows["Poison Frogs, one shot, transfer learning"]["ours"] >= 0.95
    assert abs(rows["Poison Frogs, one shot, change of accuracy"]["ours"]) <= 0.01
