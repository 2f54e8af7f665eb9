"""The records of an audit, and who gets which: pool, population and test, apart from each other.

    records ──shuffled by the seed──► pool        members of the models are drawn from it
                                  ├─► population  what an adversary has: never trained on
                                  └─► test        what the evaluator judges with

An .npz file holds ``inputs`` (B, …) and ``labels`` (B,); a folder holds them as inputs.npy and
labels.npy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attacks.core.records import Records
from attacks.errors import DataSplitError, TooFewRecordsError
from he_infer import datasets
from he_infer.errors import DataError

POOL_SHARE: Final = 0.6
POPULATION_SHARE: Final = 0.2
# Larger pools give lower false positive rates, and take longer to train on.
USUAL_POOL: Final = 4000
MOST_OTHERS: Final = 2000
LEAST_OTHERS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """``name`` of the data; disjoint ``pool``, ``population`` and ``test``; the ``digest`` of
    all records before the split. ``low``, ``high``: the interval that every input lies in."""

    name: str
    pool: Records
    population: Records
    test: Records
    low: float
    high: float
    classes: int
    digest: str

    def shaped(self, shape: tuple[int, ...]) -> Split:
        """The same records in another shape of as many values."""

        def reshape(records: Records) -> Records:
            inputs = records.inputs.reshape(len(records), *shape)
            return Records(inputs=inputs, labels=records.labels)

        return replace(
            self,
            pool=reshape(self.pool),
            population=reshape(self.population),
            test=reshape(self.test),
        )


def load_records(reference: str) -> tuple[str, Records]:
    """The name of the data and all of its records.

    Raises DataSplitError for what cannot be read, and for labels that are not classes.
    """
    if reference in NAMED:
        try:
            inputs, labels = NAMED[reference]()
        except DataError as error:
            raise DataSplitError(
                f"{error}; or take --data mnist-test, which is embedded"
            ) from error
        return reference, _records(inputs, labels, reference)
    path = Path(reference)
    if path.suffix == ".npz" and path.is_file():
        return path.stem, _from_archive(path)
    if path.is_dir():
        inputs, labels = (
            _loaded(path / f"{part}.npy", "a .npy file") for part in ("inputs", "labels")
        )
        return path.name, _records(inputs, labels, str(path))
    raise DataSplitError(
        f"no data at {reference!r}: give one of {', '.join(NAMED)}, an .npz file with the arrays "
        "inputs and labels, or a folder with inputs.npy and labels.npy"
    )


def split_records(name: str, records: Records, *, pool: int, rng: np.random.Generator) -> Split:
    """Shuffle and cut ``records``; ``pool`` 0 takes a usual size, always an even number.

    Raises TooFewRecordsError, which says how many are needed, if a part would be too small.
    """
    count = len(records)
    wanted = pool or min(USUAL_POOL, int(POOL_SHARE * count))
    wanted += wanted % 2
    others = count - wanted
    if others < 2 * LEAST_OTHERS or wanted < 2 * LEAST_OTHERS:
        raise TooFewRecordsError(
            f"{name}: {count} records leave {max(0, others)} beside a pool of {wanted} for the "
            f"adversary's population and the test: at least {wanted + 2 * LEAST_OTHERS} are "
            "needed; give more data or a smaller --pool",
            needed=max(wanted, 2 * LEAST_OTHERS) + 2 * LEAST_OTHERS,
        )
    order = rng.permutation(count)
    share = POPULATION_SHARE / (1 - POOL_SHARE)
    population = min(MOST_OTHERS, int(share * others))
    test = min(MOST_OTHERS, others - population)
    cuts = np.cumsum([wanted, population, test])
    parts = [records.select(part) for part in np.split(order, cuts)[:3]]
    return Split(
        name=name,
        pool=parts[0],
        population=parts[1],
        test=parts[2],
        low=float(records.inputs.min()),
        high=float(records.inputs.max()),
        classes=int(records.labels.max()) + 1,
        digest=digest_of(records),
    )


def digest_of(records: Records) -> str:
    """SHA-256 of inputs, labels and their shape."""
    found = hashlib.sha256(repr(records.inputs.shape).encode())
    found.update(np.ascontiguousarray(records.inputs).tobytes())
    found.update(np.ascontiguousarray(records.labels).tobytes())
    return found.hexdigest()


def shapes_for(shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Shapes in which a model may take records of ``shape``: as they are, with a channel, flat."""
    flat = (int(np.prod(shape)),)
    with_channel = (1, *shape) if len(shape) == 2 else shape
    return tuple(dict.fromkeys((shape, with_channel, flat)))


def _images(*parts: datasets.Dataset) -> tuple[NDArray[Any], NDArray[Any]]:
    inputs = np.concatenate([part.images / np.float64(part.max_value) for part in parts])
    return inputs, np.concatenate([part.labels for part in parts])


def _table(*parts: datasets.Table) -> tuple[NDArray[Any], NDArray[Any]]:
    """Each feature on [−1, 1], as Tramèr et al. 2016 scale them."""
    features = np.concatenate([part.features for part in parts])
    low, high = features.min(axis=0), features.max(axis=0)
    scaled = 2 * (features - low) / np.where(high > low, high - low, 1.0) - 1
    return scaled, np.concatenate([part.labels for part in parts])


NAMED: Final[Mapping[str, Callable[[], tuple[NDArray[Any], NDArray[Any]]]]] = MappingProxyType(
    {
        "digits": lambda: _images(*datasets.digits()),
        "iris": lambda: _table(*datasets.iris()),
        "breast-cancer": lambda: _table(*datasets.breast_cancer()),
        "mnist-test": lambda: _images(datasets.mnist_test()),
        "mnist": lambda: _images(*datasets.mnist()),
        "fashion-mnist": lambda: _images(*datasets.fashion_mnist()),
    }
)


def _from_archive(path: Path) -> Records:
    arrays = _loaded(path, "an .npz file")
    missing = sorted({"inputs", "labels"} - arrays.keys())
    if missing:
        held = ", ".join(sorted(arrays)) or "nothing"
        raise DataSplitError(f"{path} holds {held}, and lacks {' and '.join(missing)}")
    return _records(arrays["inputs"], arrays["labels"], str(path))


def _loaded(path: Path, kind: str) -> Any:
    """The array of an .npy file, or those of an .npz file by name."""
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found as archive:
            return dict(archive)
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise DataSplitError(f"{path} is not {kind} of numbers: {error}") from error


def _records(inputs: NDArray[Any], labels: NDArray[Any], where: str) -> Records:
    if inputs.dtype.kind not in "fiub" or inputs.ndim < 2 or 0 in inputs.shape:
        raise DataSplitError(
            f"{where}: inputs must be numbers of shape (records, …), got {inputs.dtype} of shape "
            f"{inputs.shape}"
        )
    if labels.dtype.kind not in "fiub" or labels.shape != inputs.shape[:1]:
        raise DataSplitError(
            f"{where}: {len(inputs)} inputs need as many labels, got {labels.dtype} of shape "
            f"{labels.shape}"
        )
    whole = labels.astype(np.int64)
    present = np.unique(whole)
    if (whole != labels).any() or present[0] != 0 or not (np.diff(present) == 1).all():
        raise DataSplitError(
            f"{where}: labels must be the classes 0, 1, 2 … without gaps, got "
            f"{', '.join(map(str, np.unique(labels)[:6]))} …"
        )
    if len(present) < 2:
        raise DataSplitError(f"{where}: all labels are 0, a classifier needs two classes")
    return Records(inputs=inputs.astype(np.float64), labels=whole)
