"""MNIST and Fashion-MNIST from IDX files: where they are published, found and checked.

Every file is checked against the SHA-256 of its *uncompressed* content, so that mirrors which
compress differently are accepted and altered images are not.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from he_infer.datasets.idx import parse_idx, read_idx_bytes
from he_infer.datasets.records import Dataset
from he_infer.errors import DataError
from he_infer.progress import Progress

DATA_VARIABLE: Final = "HE_INFER_DATA"
SIDE: Final = 28


@dataclass(frozen=True, slots=True, kw_only=True)
class IdxFile:
    """One published file: its name, how many records it holds, the SHA-256 of its content."""

    name: str
    count: int
    images: bool
    sha256: str

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count, SIDE, SIDE) if self.images else (self.count,)

    @property
    def size(self) -> int:
        """Uncompressed bytes, header included."""
        return 4 + 4 * len(self.shape) + self.count * (SIDE * SIDE if self.images else 1)


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
    return check(read_idx_bytes(path, limit=file.size), file)


def check(content: bytes, file: IdxFile) -> NDArray[np.uint8]:
    array = parse_idx(content, name=file.name)
    if array.shape != file.shape:
        raise DataError(f"{file.name}: shape {array.shape}, expected {file.shape}")
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise DataError(
            f"{file.name}: SHA-256 does not match: the file is altered or of another data set, "
            "fetch it again"
        )
    return array
