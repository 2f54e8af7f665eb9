"""Reads data sets for poisoning from folders: IMDB's reviews, and features such as Dogfish's.

    aclImdb/                      features/
      train/labeledBow.feat         train.npz   inputs (B, F), labels (B,) of 0 and 1
      test/labeledBow.feat          test.npz
      imdb.vocab

A line of ``labeledBow.feat`` is "rating word:count word:count …", with ratings of 1 to 4 for
negative and 7 to 10 for positive reviews, and words that count from 0 into ``imdb.vocab``
(Maas et al. 2011). Files are parsed strictly, and errors name the line.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy import sparse

from attacks.errors import DataSplitError
from attacks.poisoning.certified.binary import BinaryData, BinarySet
from attacks.poisoning.certified.domains import Anywhere, Counts

FEATURES: Final = "labeledBow.feat"
VOCABULARY: Final = "imdb.vocab"
_NEGATIVE: Final = range(1, 5)
_POSITIVE: Final = range(7, 11)
_MOST_WORDS: Final = 10_000_000


def imdb(folder: Path) -> BinaryData:
    """IMDB's 25,000 training and 25,000 test reviews as word counts, from ``folder``/aclImdb or
    ``folder`` itself. Raises DataSplitError for files that are missing or malformed."""
    root = folder / "aclImdb" if (folder / "aclImdb").is_dir() else folder
    vocabulary = len(_lines(root / VOCABULARY))
    if not 2 <= vocabulary <= _MOST_WORDS:
        raise DataSplitError(f"{VOCABULARY} lists {vocabulary} words: expected 2 or more")
    sides = [bag_of_words(root / side / FEATURES, vocabulary) for side in ("train", "test")]
    return BinaryData(train=sides[0], test=sides[1], domain=Counts())


def bag_of_words(path: Path, vocabulary: int) -> BinarySet:
    """One file of labelled word counts over ``vocabulary`` words; (documents, vocabulary) CSR.

    Raises DataSplitError, with the line, for a rating that is neither low nor high, a word
    outside the vocabulary or named twice, or a count that is not a positive whole number.
    """
    signs: list[float] = []
    starts, columns, counts = [0], [], []
    for number, line in enumerate(_lines(path), start=1):
        rating, *pairs = line.split(" ")
        signs.append(_sign(rating, path, number))
        row: dict[int, int] = {}
        for pair in pairs:
            word, colon, count = pair.partition(":")
            if not colon or not _is_whole(word) or not _is_whole(count) or int(count) < 1:
                raise DataSplitError(
                    f"{path.name}, line {number}: expected word:count, got {pair[:40]!r}"
                )
            if int(word) >= vocabulary or int(word) in row:
                raise DataSplitError(
                    f"{path.name}, line {number}: word {int(word)} is named twice or lies outside "
                    f"a vocabulary of {vocabulary}"
                )
            row[int(word)] = int(count)
        columns += list(row)
        counts += list(row.values())
        starts.append(len(columns))
    if not signs:
        raise DataSplitError(f"{path.name} holds no document")
    inputs = sparse.csr_array(
        (np.array(counts, dtype=np.float64), columns, starts), shape=(len(signs), vocabulary)
    )
    return BinarySet(inputs=inputs, signs=np.array(signs))


def features(folder: Path) -> BinaryData:
    """A network's features of images of two classes, as Dogfish is published; any values allowed.

    Raises DataSplitError for files that are missing or hold anything else.
    """
    return BinaryData(
        train=_archive(folder / "train.npz"),
        test=_archive(folder / "test.npz"),
        domain=Anywhere(),
    )


def _archive(path: Path) -> BinarySet:
    try:
        # Opened here: numpy leaves the file open where the archive is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            inputs, labels = (np.asarray(archive[name]) for name in ("inputs", "labels"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataSplitError(
            f"{path.name} does not hold inputs and labels ({type(error).__name__}): save both with "
            "numpy.savez"
        ) from error
    if inputs.dtype.kind not in "fiu" or not np.isin(labels, (0, 1)).all():
        raise DataSplitError(f"{path.name}: expected numbers, with labels of 0 and 1")
    signs: Any = np.where(labels == 1, 1.0, -1.0)
    return BinarySet(inputs=inputs.astype(np.float64), signs=signs)


def _sign(rating: str, path: Path, number: int) -> float:
    if _is_whole(rating):
        if int(rating) in _NEGATIVE:
            return -1.0
        if int(rating) in _POSITIVE:
            return 1.0
    raise DataSplitError(
        f"{path.name}, line {number}: expected a rating of 1 to 4 or 7 to 10, got {rating[:40]!r}"
    )


def _is_whole(text: str) -> bool:
    # A count of 10 digits is no count, and int() of a huge one takes long.
    return text.isascii() and text.isdigit() and len(text) <= 9


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataSplitError(
            f"cannot read {path.name} ({type(error).__name__}): give the folder that aclImdb's "
            "archive unpacks to"
        ) from error
    return text.removesuffix("\n").split("\n") if text else []
