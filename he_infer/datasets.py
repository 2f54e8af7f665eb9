"""Data sets: MNIST's test images embedded, the rest from IDX files, a download or scikit-learn.

Every file of the MNIST family is checked against the SHA-256 of its *uncompressed* content, so
that mirrors which compress differently are accepted and altered images are not.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from he_infer.errors import DataError
from he_infer.idx import inflate, parse_idx, read_idx_bytes
from he_infer.progress import Progress

DATA_VARIABLE: Final = "HE_INFER_DATA"
CALIBRATION_IMAGES: Final = 1024
_TEST_EVERY: Final = 5
_SIDE: Final = 28


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Grey images with labels.

    ``images``: (B, H, W) uint8, 0 … ``max_value``; ``labels``: (B,) int64, from 0.
    Raises DataError if shapes, types or values do not fit together.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    max_value: int = 255

    def __post_init__(self) -> None:
        if self.images.ndim != 3 or self.images.dtype != np.uint8:
            raise DataError(f"{self.name}: images must be uint8 of shape (count, height, width)")
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"{self.name}: {len(self.images)} images need as many int64 labels, "
                f"got {self.labels.dtype} of shape {self.labels.shape}"
            )
        if self.images.size and int(self.images.max()) > self.max_value:
            raise DataError(f"{self.name}: a pixel exceeds {self.max_value}")

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self) -> NDArray[np.float32]:
        """Pixels scaled to [0, 1], (B, 1, H, W)."""
        return (self.images[:, None] / np.float32(self.max_value)).astype(np.float32)

    def flat_inputs(self) -> NDArray[np.float32]:
        """Pixels scaled to [0, 1], (B, H·W)."""
        return self.inputs().reshape(len(self), -1)

    def select(self, indices: NDArray[np.integer[Any]] | slice) -> Dataset:
        """The records at ``indices``, in that order."""
        return Dataset(
            name=self.name,
            images=self.images[indices],
            labels=self.labels[indices],
            max_value=self.max_value,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Numeric features with labels: ``features`` (B, F) float64, ``labels`` (B,) int64."""

    name: str
    features: NDArray[np.float64]
    labels: NDArray[np.int64]
    feature_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.features.shape != (len(self.labels), len(self.feature_names)):
            raise DataError(
                f"{self.name}: features of shape {self.features.shape} do not fit "
                f"{len(self.labels)} labels and {len(self.feature_names)} names"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: NDArray[np.integer[Any]] | slice) -> Table:
        """The records at ``indices``, in that order."""
        return Table(
            name=self.name,
            features=self.features[indices],
            labels=self.labels[indices],
            feature_names=self.feature_names,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IdxFile:
    """One published file: its name, how many records it holds, the SHA-256 of its content."""

    name: str
    count: int
    images: bool
    sha256: str

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count, _SIDE, _SIDE) if self.images else (self.count,)

    @property
    def size(self) -> int:
        """Uncompressed bytes, header included."""
        return 4 + 4 * len(self.shape) + self.count * (_SIDE * _SIDE if self.images else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdxSource:
    """A data set published as four gzip'd IDX files below one URL."""

    name: str
    url: str
    train: tuple[IdxFile, IdxFile]  # images, labels
    test: tuple[IdxFile, IdxFile]


def _files(prefix: str, count: int, images: str, labels: str) -> tuple[IdxFile, IdxFile]:
    return (
        IdxFile(name=f"{prefix}-images-idx3-ubyte.gz", count=count, images=True, sha256=images),
        IdxFile(name=f"{prefix}-labels-idx1-ubyte.gz", count=count, images=False, sha256=labels),
    )


MNIST: Final = IdxSource(
    name="mnist",
    url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    train=_files(
        "train",
        60_000,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    test=_files(
        "t10k",
        10_000,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)
FASHION_MNIST: Final = IdxSource(
    name="fashion-mnist",
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    train=_files(
        "train",
        60_000,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    test=_files(
        "t10k",
        10_000,
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)


def mnist_test() -> Dataset:
    """MNIST's 10,000 test images, which the package carries; (10000, 28, 28)."""
    images, labels = (_checked_array(_embedded(file.name), file) for file in MNIST.test)
    return Dataset(name="mnist/test", images=images, labels=labels.astype(np.int64))


def mnist_calibration() -> NDArray[np.uint8]:
    """The first 1,024 *training* images of MNIST, embedded; (1024, 28, 28), no labels.

    Ranges are calibrated on these, so that a plan never depends on test images.
    """
    name = f"train-first-{CALIBRATION_IMAGES}-images-idx3-ubyte.gz"
    limit = 16 + CALIBRATION_IMAGES * _SIDE * _SIDE
    return parse_idx(inflate(_embedded(name), limit=limit, name=name), name=name)


def mnist(folder: Path | None = None) -> tuple[Dataset, Dataset]:
    """MNIST, (60,000 training, 10,000 test images), from IDX files.

    ``folder`` (else $HE_INFER_DATA, else where :func:`download` puts files) holds the four
    files or a subfolder ``mnist`` with them. Raises DataError if they are missing or altered.
    """
    return _load(MNIST, folder)


def fashion_mnist(folder: Path | None = None) -> tuple[Dataset, Dataset]:
    """Fashion-MNIST, (60,000 training, 10,000 test images); otherwise like :func:`mnist`."""
    return _load(FASHION_MNIST, folder)


def download(
    source: IdxSource, folder: Path | None = None, *, progress: Progress | None = None
) -> Path:
    """Fetch the four files of ``source`` into a subfolder of ``folder`` and check them.

    Files that are already there and intact are kept. ``folder``: the user's cache by default.
    Returns the subfolder. Raises DataError if a file cannot be fetched or fails its checksum.
    """
    import pooch

    target = (folder or default_folder()) / source.name
    target.mkdir(parents=True, exist_ok=True)
    files = (*source.train, *source.test)
    for done, file in enumerate(files):
        if progress is not None:
            progress(f"download {source.name}", done, len(files))
        if (target / file.name).exists():
            _read_checked(target / file.name, file)
            continue
        # Beside the target, so that the final rename is atomic and nothing unchecked lands.
        with tempfile.TemporaryDirectory(dir=target) as scratch:
            try:
                fetched = pooch.retrieve(
                    source.url + file.name, known_hash=None, fname=file.name, path=scratch
                )
            except (OSError, ValueError) as error:
                raise DataError(
                    f"cannot download {source.url}{file.name} ({type(error).__name__}): go "
                    f"online, or copy the four IDX files to a folder and set {DATA_VARIABLE} to it"
                ) from error
            _read_checked(Path(fetched), file)
            Path(fetched).replace(target / file.name)
    if progress is not None:
        progress(f"download {source.name}", len(files), len(files))
    return target


def default_folder() -> Path:
    """$HE_INFER_DATA if it is set, else the user's cache folder for this package."""
    chosen = os.environ.get(DATA_VARIABLE)
    if chosen:
        return Path(chosen)
    import pooch

    return Path(pooch.os_cache("he-infer"))


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


def _load(source: IdxSource, folder: Path | None) -> tuple[Dataset, Dataset]:
    root = Path(folder) if folder is not None else default_folder()
    halves = []
    for part, files in (("train", source.train), ("test", source.test)):
        images, labels = (_read_checked(_find(source, root, file), file) for file in files)
        name = f"{source.name}/{part}"
        halves.append(Dataset(name=name, images=images, labels=labels.astype(np.int64)))
    return halves[0], halves[1]


def _find(source: IdxSource, root: Path, file: IdxFile) -> Path:
    """The file below ``root``, gzip'd or not, in the subfolder of its data set or beside it."""
    plain = file.name.removesuffix(".gz")
    for candidate in (
        root / source.name / file.name,
        root / source.name / plain,
        root / file.name,
        root / plain,
    ):
        if candidate.is_file():
            return candidate
    raise DataError(
        f"{file.name} of {source.name} is not in {root}: pass folder=, set {DATA_VARIABLE} to a "
        f"folder with the IDX files, or fetch them with he_infer.datasets.download"
    )


def _read_checked(path: Path, file: IdxFile) -> NDArray[np.uint8]:
    return _check(read_idx_bytes(path, limit=file.size), file)


def _checked_array(data: bytes, file: IdxFile) -> NDArray[np.uint8]:
    return _check(inflate(data, limit=file.size, name=file.name), file)


def _check(content: bytes, file: IdxFile) -> NDArray[np.uint8]:
    array = parse_idx(content, name=file.name)
    if array.shape != file.shape:
        raise DataError(f"{file.name}: shape {array.shape}, expected {file.shape}")
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise DataError(
            f"{file.name}: SHA-256 does not match: the file is altered or of another data set, "
            "fetch it again"
        )
    return array


def _embedded(name: str) -> bytes:
    return resources.files("he_infer").joinpath("data", name).read_bytes()
