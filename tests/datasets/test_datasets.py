"""Data sets: the strict IDX parser on hostile files, checksums, splits, and missing data."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pooch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from he_infer import datasets
from he_infer.datasets import DATA_VARIABLE, Dataset, IdxFile, IdxSource, Table, downloads
from he_infer.datasets.idx import inflate, parse_idx, read_idx_bytes
from he_infer.errors import DataError


def idx(shape: tuple[int, ...], body: bytes, *, kind: int = 0x08) -> bytes:
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + body


GOOD = idx((2, 3, 2), bytes(range(12)))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_parse_returns_what_was_written(sizes: list[int], random: object) -> None:
    shape = tuple(sizes)
    array = np.arange(int(np.prod(shape)), dtype=np.uint8).reshape(shape)
    np.testing.assert_array_equal(parse_idx(idx(shape, array.tobytes())), array)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (GOOD[:3], "truncated"),
        (GOOD[:9], "header"),
        (GOOD[:-1], "truncated"),
        (GOOD + b"\0", "trailing bytes"),
        (idx((3, 3, 2), bytes(12)), "truncated"),  # a count that is too large
        (idx((1, 3, 2), bytes(12)), "trailing bytes"),  # a count that is too small
        (b"\x01" + GOOD[1:], "magic"),
        (idx((12,), bytes(12), kind=0x0D), "magic"),  # floats
        (bytes([0, 0, 8, 0]), "magic"),  # no dimension
        (bytes([0, 0, 8, 255]) + bytes(2000), "magic"),  # absurdly many
        (idx((2**32 - 1,) * 4, b""), "truncated"),  # a product beyond 64 bits
    ],
)
def test_hostile_idx_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        parse_idx(data)


def test_inflate_stops_at_the_limit() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    with pytest.raises(DataError, match="more than the 1000 bytes"):
        inflate(bomb, limit=1000)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda packed: packed[:-4], "truncated"),
        (lambda packed: packed + b"more", "trailing"),
        (lambda packed: b"PK" + packed[2:], "not a valid gzip"),
        (lambda packed: packed[:-8] + bytes(4) + packed[-4:], "not a valid gzip"),  # CRC-32
    ],
)
def test_damaged_gzip_is_refused(damage: object, reason: str) -> None:
    packed = gzip.compress(GOOD)
    assert inflate(packed, limit=len(GOOD)) == GOOD
    assert callable(damage)
    with pytest.raises(DataError, match=reason):
        inflate(damage(packed), limit=len(GOOD))


def test_plain_files_are_read_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file-idx3-ubyte"
    path.write_bytes(GOOD)
    assert read_idx_bytes(path, limit=len(GOOD)) == GOOD
    with pytest.raises(DataError, match="larger than"):
        read_idx_bytes(path, limit=len(GOOD) - 1)
    with pytest.raises(DataError, match="cannot read"):
        read_idx_bytes(tmp_path / "absent", limit=10)


def test_embedded_mnist_test_set() -> None:
    test = datasets.mnist_test()
    assert test.images.shape == (10_000, 28, 28)
    assert np.bincount(test.labels).tolist() == [  # as published
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    inputs = test.select(slice(50)).inputs()
    assert inputs.shape == (50, 1, 28, 28)
    assert inputs.dtype == np.float32
    assert (inputs.min(), inputs.max()) == (0.0, 1.0)


def test_calibration_images_are_not_test_images() -> None:
    calibration = datasets.mnist_calibration()
    assert calibration.shape == (1024, 28, 28)
    seen = {image.tobytes() for image in datasets.mnist_test().images}
    assert not any(image.tobytes() in seen for image in calibration)


def tiny_source(folder: Path, *, name: str = "tiny") -> IdxSource:
    """Four small files below folder/name, and the source that describes them."""
    (folder / name).mkdir(parents=True)
    files: list[IdxFile] = []
    rng = np.random.default_rng(7)
    for prefix, count in (("train", 6), ("t10k", 3)):
        for kind, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            body = rng.integers(0, 10, shape, dtype=np.uint8)
            content = idx(shape, body.tobytes())
            file = IdxFile(
                name=f"{prefix}-{kind}-ubyte.gz",
                count=count,
                images=len(shape) == 3,
                sha256=hashlib.sha256(content).hexdigest(),
            )
            assert file.size == len(content)
            (folder / name / file.name).write_bytes(gzip.compress(content))
            files.append(file)
    return IdxSource(
        name=name, url="http://127.0.0.1:9/", train=(files[0], files[1]), test=(files[2], files[3])
    )


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IdxSource:
    source = tiny_source(tmp_path)
    monkeypatch.setattr(downloads, "MNIST", source)
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    return source


def test_folder_with_or_without_subfolder(
    tiny: IdxSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = datasets.mnist(tmp_path)
    assert (len(train), len(test)) == (6, 3)
    np.testing.assert_array_equal(datasets.mnist(tmp_path / "tiny")[0].images, train.images)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    np.testing.assert_array_equal(datasets.mnist()[1].labels, test.labels)


def test_uncompressed_files_are_found(tiny: IdxSource, tmp_path: Path) -> None:
    path = tmp_path / "tiny" / tiny.train[0].name
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
    assert len(datasets.mnist(tmp_path)[0]) == 6


def test_altered_file_fails_its_checksum(tiny: IdxSource, tmp_path: Path) -> None:
    path = tmp_path / "tiny" / tiny.test[1].name
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-1] ^= 1
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(DataError, match="SHA-256"):
        datasets.mnist(tmp_path)


def test_another_count_is_refused(tiny: IdxSource, tmp_path: Path) -> None:
    path = tmp_path / "tiny" / tiny.test[1].name
    path.write_bytes(gzip.compress(idx((2,), bytes(2))))
    with pytest.raises(DataError, match=r"shape \(2,\), expected \(3,\)"):
        datasets.mnist(tmp_path)


def test_missing_data_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=DATA_VARIABLE):
        datasets.mnist(tmp_path)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(DataError, match="download"):
        datasets.fashion_mnist()


def test_download_keeps_intact_files_and_needs_no_network(tiny: IdxSource, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    target = datasets.download(tiny, tmp_path, progress=lambda *report: seen.append(report))
    assert target == tmp_path / "tiny"
    assert seen[-1] == ("download tiny", 4, 4)


def test_download_offline_names_the_way_out(
    tiny: IdxSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise ConnectionError("unreachable")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    with pytest.raises(DataError, match=f"copy the four IDX files.*{DATA_VARIABLE}"):
        datasets.download(tiny, tmp_path / "elsewhere")


def test_download_discards_what_fails_its_checksum(
    tiny: IdxSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(url: str, known_hash: None, fname: str, path: str) -> str:
        wrong = idx((6, 28, 28), bytes(6 * 784))
        (Path(path) / fname).write_bytes(gzip.compress(wrong))
        return str(Path(path) / fname)

    monkeypatch.setattr(pooch, "retrieve", serve)
    with pytest.raises(DataError, match="SHA-256"):
        datasets.download(tiny, tmp_path / "elsewhere")
    assert list((tmp_path / "elsewhere" / "tiny").iterdir()) == []


def test_download_stores_checked_files(
    tiny: IdxSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(url: str, known_hash: None, fname: str, path: str) -> str:
        (Path(path) / fname).write_bytes((tmp_path / "tiny" / fname).read_bytes())
        return str(Path(path) / fname)

    monkeypatch.setattr(pooch, "retrieve", serve)
    datasets.download(tiny, tmp_path / "elsewhere")
    assert len(datasets.mnist(tmp_path / "elsewhere")[0]) == 6


def test_bundled_splits_are_disjoint_and_complete() -> None:
    train, test = datasets.digits()
    assert (len(train), len(test)) == (1438, 359)
    assert train.inputs().shape == (1438, 1, 8, 8)
    assert train.flat_inputs().shape == (1438, 64)
    assert train.flat_inputs().max() == 1.0
    images = [image.tobytes() for part in (train, test) for image in part.images]
    assert len(set(images)) == len(images) == 1797  # no image is in both parts, or twice


@pytest.mark.parametrize(
    ("parts", "sizes", "features", "classes"),
    [
        (datasets.iris, (120, 30), 4, 3),
        (datasets.breast_cancer, (456, 113), 30, 2),
    ],
)
def test_tables(parts: object, sizes: tuple[int, int], features: int, classes: int) -> None:
    assert callable(parts)
    train, test = parts()
    assert (len(train), len(test)) == sizes
    assert train.features.shape[1] == features == len(train.feature_names)
    for part in (train, test):
        assert set(part.labels.tolist()) == set(range(classes))


def test_records_that_do_not_fit_together_are_refused() -> None:
    images = np.zeros((2, 8, 8), np.uint8)
    labels = np.zeros(2, np.int64)
    with pytest.raises(DataError, match="labels"):
        Dataset(name="x", images=images, labels=labels[:1])
    with pytest.raises(DataError, match="uint8"):
        Dataset(name="x", images=images[0], labels=labels)
    with pytest.raises(DataError, match="exceeds 16"):
        Dataset(name="x", images=images + 17, labels=labels, max_value=16)
    with pytest.raises(DataError, match="do not fit"):
        Table(name="x", features=np.zeros((2, 3)), labels=labels, feature_names=("a",))


def test_published_files() -> None:
    if not os.environ.get(DATA_VARIABLE):
        pytest.skip(f"{DATA_VARIABLE} is not set: the full data sets are not here")
    train, test = datasets.mnist()
    assert (len(train), len(test)) == (60_000, 10_000)
    np.testing.assert_array_equal(test.images, datasets.mnist_test().images)
    np.testing.assert_array_equal(train.images[:1024], datasets.mnist_calibration())
    fashion, _ = datasets.fashion_mnist()
    assert np.bincount(fashion.labels).tolist() == [6000] * 10


def test_wilson_interval_matches_published_values() -> None:
    # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    for (successes, trials), expected in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
        (8, 10): (0.4902, 0.9433),  # the classic example
    }.items():
        assert datasets.wilson_interval(successes, trials) == pytest.approx(expected, abs=5e-5)
    with pytest.raises(DataError):
        datasets.wilson_interval(3, 2)
