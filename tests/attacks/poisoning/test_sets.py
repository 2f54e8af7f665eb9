"""Folders are read strictly, and the made-up language has the statistics it claims."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from attacks.core.records import Records
from attacks.errors import DataSplitError
from attacks.poisoning.certified.binary import BinaryData, BinarySet, joined
from attacks.poisoning.certified.domains import Anywhere, Box, Counts
from attacks.poisoning.certified.sets import bag_of_words, features, imdb
from attacks.poisoning.certified.text import TwoTopics
from attacks.poisoning.setting import PoisonBudget, PoisonedSet, PoisoningData, removal


def reviews(folder: Path, train: str, test: str = "2 0:1\n9 1:1\n") -> Path:
    root = folder / "aclImdb"
    for side, text in (("train", train), ("test", test)):
        (root / side).mkdir(parents=True)
        (root / side / "labeledBow.feat").write_text(text, encoding="utf-8")
    (root / "imdb.vocab").write_text("the\nfilm\nbad\n", encoding="utf-8")
    return folder


def test_reviews_are_read_as_counts(tmp_path: Path) -> None:
    folder = reviews(tmp_path, "9 0:9 1:1\n1 2:4\n7 0:1\n")
    for each in (folder, folder / "aclImdb"):
        data = imdb(each)
        assert data.train.inputs.toarray().tolist() == [[9, 1, 0], [0, 0, 4], [1, 0, 0]]
        assert data.train.signs.tolist() == [1, -1, 1] and data.train.labels.tolist() == [1, 0, 1]
        assert len(data.test) == 2 and data.domain == Counts()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("5 0:1", "rating of 1 to 4 or 7 to 10, got '5'"),
        ("x 0:1", "line 2: expected a rating"),
        ("", "line 2: expected a rating"),
        ("9 0", "expected word:count, got '0'"),
        ("9 0:-1", "expected word:count"),
        ("9 0:0", "expected word:count"),
        ("9 0:1.5", "expected word:count"),
        ("9 0:²", "expected word:count"),
        ("9  0:1", "expected word:count, got ''"),
        ("9 0:9999999999", "expected word:count"),
        ("9 3:1", "vocabulary of 3"),
        ("9 1:1 1:2", "named twice"),
    ],
)
def test_a_malformed_line_is_refused_with_its_number(
    tmp_path: Path, line: str, message: str
) -> None:
    with pytest.raises(DataSplitError, match=message):
        imdb(reviews(tmp_path, f"1 0:1\n{line}\n"))


def test_missing_or_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataSplitError, match=r"cannot read imdb\.vocab"):
        imdb(tmp_path)
    with pytest.raises(DataSplitError, match="holds no document"):
        imdb(reviews(tmp_path, ""))
    (tmp_path / "binary.feat").write_bytes(b"\xff\xfe")
    with pytest.raises(DataSplitError, match="UnicodeDecodeError"):
        bag_of_words(tmp_path / "binary.feat", 3)


def test_features_come_from_two_archives(tmp_path: Path) -> None:
    for name in ("train", "test"):
        np.savez(tmp_path / f"{name}.npz", inputs=np.eye(4, 3), labels=np.array([0, 1, 0, 1]))
    data = features(tmp_path)
    assert data.train.features == 3 and data.domain == Anywhere()
    np.savez(tmp_path / "test.npz", inputs=np.eye(4, 3), labels=np.array([0, 1, 2, 1]))
    with pytest.raises(DataSplitError, match="labels of 0 and 1"):
        features(tmp_path)
    np.savez(tmp_path / "test.npz", inputs=np.array([{}], dtype=object), labels=np.zeros(1))
    with pytest.raises(DataSplitError, match="does not hold inputs and labels"):
        features(tmp_path)
    (tmp_path / "test.npz").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(DataSplitError, match="does not hold inputs and labels"):
        features(tmp_path)


def test_the_language_is_zipf_mandelbrots_and_the_topics_tilt_it() -> None:
    language = TwoTopics(vocabulary=50, words=2000.0, spread=0.2, strength=0.4)
    (records,) = language.draw(400, rng=np.random.default_rng(0))
    again = language.draw(400, rng=np.random.default_rng(0))[0]
    assert (records.inputs != again.inputs).nnz == 0 and records.signs.sum() == 0
    lengths = np.asarray(records.inputs.sum(axis=1)).ravel()
    assert np.median(lengths) == pytest.approx(2000, rel=0.05)
    assert np.log(lengths).std() == pytest.approx(0.2, abs=0.03)
    shares = [
        np.asarray(records.inputs[records.signs == sign].sum(axis=0)).ravel()
        for sign in (-1.0, 1.0)
    ]
    shares = [each / each.sum() for each in shares]
    tilt = np.log(shares[1] / shares[0])
    assert tilt.std() == pytest.approx(0.4, rel=0.3)
    # The geometric mean of both topics is the language itself, up to a constant.
    middle = np.log(shares[0] * shares[1]) / 2 + np.log(np.arange(50) + 1 + 5 + 2.7)
    assert middle.std() < 0.05


@pytest.mark.parametrize(
    "change", [{"vocabulary": 1}, {"words": 0.0}, {"strength": -1.0}, {"stop_words": -1}]
)
def test_a_language_that_cannot_be_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(DataSplitError, match="two topics need"):
        TwoTopics(**change)  # type: ignore[arg-type]


def records(count: int = 6) -> Records:
    return Records(
        inputs=np.linspace(0, 1, 2 * count).reshape(count, 1, 2),
        labels=(np.arange(count) % 3).astype(np.int64),
    )


def test_two_classes_are_taken_out_of_many() -> None:
    data = PoisoningData(train=records(), test=records(), low=0.0, high=1.0, classes=3)
    pair = BinaryData.of(data, negative=0, positive=2)
    assert pair.train.signs.tolist() == [-1, 1, -1, 1] and pair.domain == Box(low=0.0, high=1.0)
    assert BinaryData.of(data, within_range=False).domain == Anywhere()
    with pytest.raises(DataSplitError, match="two classes with records"):
        BinarySet.of(records(), negative=1, positive=1)
    both = joined([BinarySet(inputs=sparse.csr_array(np.eye(2)), signs=np.array([-1.0, 1.0]))] * 2)
    assert both.is_sparse and len(both) == 4


def test_budgets_outside_the_set_are_refused() -> None:
    for fraction in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(DataSplitError, match=r"in \(0, 1\]"):
            PoisonBudget(fraction=fraction)
    for count in (0, 11):
        with pytest.raises(DataSplitError, match="does not fit a training set of 10"):
            PoisonBudget.of_records(count, clean=10)
    assert PoisonBudget.of_records(7, clean=10).records(10) == 7
    assert PoisonBudget(fraction=0.03).records(13007) == 390
    with pytest.raises(DataSplitError, match="less than one poison record"):
        PoisonBudget(fraction=0.01).records(50)


def test_settings_that_do_not_fit_are_refused() -> None:
    clean = records()
    with pytest.raises(DataSplitError, match="outside"):
        PoisoningData(train=clean, test=clean, low=0.0, high=0.5, classes=3)
    with pytest.raises(DataSplitError, match="label of 2 among 2"):
        PoisoningData(train=clean, test=clean, low=0.0, high=1.0, classes=2)
    with pytest.raises(DataSplitError, match="both sides need"):
        PoisoningData(train=clean, test=clean.select(slice(0, 0)), low=0.0, high=1.0, classes=3)
    both = PoisonedSet.of(clean, clean.select(slice(0, 2)))
    assert both.is_poison.sum() == 2 and len(both.kept(~both.is_poison)) == 6
    with pytest.raises(DataSplitError, match="one yes or no"):
        both.kept(np.ones(3, dtype=np.bool_))
    found = removal(~both.is_poison, both.is_poison)
    assert found["poison_removed"].value == 1 and found["clean_removed"].value == 0
