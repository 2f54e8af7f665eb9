"""Data that need no file: MNIST's test images in the package, scikit-learn's small sets."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from he_infer.datasets.downloads import MNIST, SIDE, IdxFile, check
from he_infer.datasets.idx import inflate, parse_idx
from he_infer.datasets.records import Dataset, Table
from he_infer.errors import DataError

CALIBRATION_IMAGES: Final = 1024
_TEST_EVERY: Final = 5


def mnist_test() -> Dataset:
    """MNIST's 10,000 test images, which the package carries; (10000, 28, 28)."""
    images, labels = (_checked_array(_embedded(file.name), file) for file in MNIST.test)
    return Dataset(name="mnist/test", images=images, labels=labels.astype(np.int64))


def mnist_calibration() -> NDArray[np.uint8]:
    """The first 1,024 *training* images of MNIST, embedded; (1024, 28, 28), no labels.

    Ranges are calibrated on these, so that a plan never depends on test images.
    """
    name = f"train-first-{CALIBRATION_IMAGES}-images-idx3-ubyte.gz"
    limit = 16 + CALIBRATION_IMAGES * SIDE * SIDE
    return parse_idx(inflate(_embedded(name), limit=limit, name=name), name=name)


def digits() -> tuple[Dataset, Dataset]:
    """scikit-learn's 8x8 digits, pixels 0 … 16: (1,438 training, 359 test images).

    Every fifth record (index 4, 9, …) is a test record, in this and the tables below.
    Raises DataError if scikit-learn is not installed.
    """
    bunch = _bundled("load_digits")
    images = np.asarray(bunch["images"]).astype(np.uint8)
    labels = np.asarray(bunch["target"]).astype(np.int64)
    whole = Dataset(name="digits", images=images, labels=labels, max_value=16)
    train, test = _split_indices(len(whole))
    return whole.select(train), whole.select(test)


def iris() -> tuple[Table, Table]:
    """scikit-learn's iris, 4 features in cm, 3 classes: (120 training, 30 test records)."""
    return _table("iris", "load_iris")


def breast_cancer() -> tuple[Table, Table]:
    """scikit-learn's breast cancer, 30 features, 2 classes: (456 training, 113 test records)."""
    return _table("breast-cancer", "load_breast_cancer")


def _table(name: str, loader: str) -> tuple[Table, Table]:
    bunch = _bundled(loader)
    whole = Table(
        name=name,
        features=np.asarray(bunch["data"], dtype=np.float64),
        labels=np.asarray(bunch["target"]).astype(np.int64),
        feature_names=tuple(str(feature) for feature in bunch["feature_names"]),
    )
    train, test = _split_indices(len(whole))
    return whole.select(train), whole.select(test)


def _split_indices(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every fifth index tests. Needs no random stream, and keeps sorted classes balanced."""
    indices = np.arange(count, dtype=np.int64)
    is_test = indices % _TEST_EVERY == _TEST_EVERY - 1
    return indices[~is_test], indices[is_test]


def _bundled(loader: str) -> Mapping[str, Any]:
    try:
        import sklearn.datasets
    except ImportError as error:
        raise DataError("scikit-learn is not installed: pip install scikit-learn") from error
    bunch: Mapping[str, Any] = getattr(sklearn.datasets, loader)()
    return bunch


def _checked_array(data: bytes, file: IdxFile) -> NDArray[np.uint8]:
    return check(inflate(data, limit=file.size, name=file.name), file)


def _embedded(name: str) -> bytes:
    return resources.files("he_infer.datasets").joinpath("data", name).read_bytes()
