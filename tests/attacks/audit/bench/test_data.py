"""Where an audit's records come from, and that its parts never overlap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attacks.audit.bench.data import load_records, shapes_for, split_records
from attacks.core.records import Records
from attacks.errors import DataSplitError, TooFewRecordsError


def numbered(count: int) -> Records:
    inputs = np.arange(count, dtype=np.float64)[:, None]
    return Records(inputs=inputs, labels=(np.arange(count) % 2).astype(np.int64))


@pytest.mark.parametrize(("count", "pool"), [(150, 0), (1797, 0), (1797, 1001), (10_000, 2000)])
def test_parts_are_apart_and_the_pool_even(count: int, pool: int) -> None:
    split = split_records("n", numbered(count), pool=pool, rng=np.random.default_rng(0))
    parts = [part.inputs.ravel() for part in (split.pool, split.population, split.test)]
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together) <= count
    assert len(split.pool) % 2 == 0 and min(map(len, parts)) >= 20
    assert len(split.pool) == pool + pool % 2 or not pool


def test_the_seed_decides_the_split() -> None:
    def pool(seed: int) -> list[float]:
        rng = np.random.default_rng(seed)
        inputs = split_records("n", numbered(200), pool=0, rng=rng).pool.inputs
        return [float(value) for value in inputs.ravel()]

    assert pool(1) == pool(1) != pool(2)


def test_too_few_records_say_how_many_are_needed() -> None:
    with pytest.raises(TooFewRecordsError, match="at least 180 are needed") as caught:
        split_records("n", numbered(150), pool=140, rng=np.random.default_rng(0))
    assert caught.value.needed == 180


def test_embedded_sets_load() -> None:
    for name, shape in (("digits", (8, 8)), ("iris", (4,)), ("breast-cancer", (30,))):
        found, records = load_records(name)
        assert found == name and records.shape == shape
        assert records.inputs.min() >= -1 and records.inputs.max() == 1


def test_archives_and_folders_give_the_same(tmp_path: Path) -> None:
    inputs, labels = np.random.default_rng(0).uniform(size=(50, 3)), np.arange(50) % 3
    np.savez(tmp_path / "mine.npz", inputs=inputs, labels=labels)
    folder = tmp_path / "mine"
    folder.mkdir()
    np.save(folder / "inputs.npy", inputs)
    np.save(folder / "labels.npy", labels)
    (name, archived), (again, loose) = (
        load_records(str(tmp_path / "mine.npz")),
        load_records(str(folder)),
    )
    assert name == again == "mine"
    assert np.array_equal(archived.inputs, loose.inputs)
    assert np.array_equal(archived.labels, loose.labels)


X, Y = np.zeros((10, 2)), np.arange(10) % 2


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": X}, "holds x, and lacks inputs and labels"),
        ({"inputs": X, "labels": Y[:5]}, "10 inputs need as many labels"),
        ({"inputs": X[:, 0], "labels": Y}, "of shape"),
        ({"inputs": X[:0], "labels": Y[:0]}, "of shape"),
        ({"inputs": X, "labels": Y + 1}, "classes 0, 1, 2"),
        ({"inputs": X, "labels": Y * 2}, "without gaps"),
        ({"inputs": X, "labels": Y + 0.5}, "classes 0, 1, 2"),
        ({"inputs": X, "labels": Y * 0}, "two classes"),
        ({"inputs": X + np.nan, "labels": Y}, "not finite"),
        ({"inputs": X.astype(str), "labels": Y}, "must be numbers"),
        ({"inputs": X.astype(object), "labels": Y}, "not an .npz file of numbers"),
    ],
)
def test_bad_archives_are_refused_in_words(
    tmp_path: Path, arrays: dict[str, Any], words: str
) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataSplitError, match=words):
        load_records(str(tmp_path / "bad.npz"))


def test_what_is_not_there_says_what_is_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataSplitError, match=r"digits, iris.*\.npz"):
        load_records("cifar")
    with pytest.raises(DataSplitError, match=r"inputs\.npy"):
        load_records(str(tmp_path))
    monkeypatch.setenv("HE_INFER_DATA", str(tmp_path))
    with pytest.raises(DataSplitError, match="mnist-test"):
        load_records("mnist")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(DataSplitError, match=r"text\.npz"):
        load_records(str(tmp_path / "text.npz"))


def test_shapes_are_tried_from_natural_to_flat() -> None:
    assert shapes_for((8, 8)) == ((8, 8), (1, 8, 8), (64,))
    assert shapes_for((30,)) == ((30,),)
