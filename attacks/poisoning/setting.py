"""What a poisoning attack is given, how much it may add, and what a filter takes out again.

    clean training records ──► attack adds a budgeted share ──► filter ──► learner ──► test error
                                                                  │
                                          every figure beside the same without poison

The adversary only adds records before training and never asks a model anything. So a result has no
queries, and the "oracle" that it names is the learner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from attacks.core.arrays import Bools, Floats, Ints
from attacks.core.intervals import Estimate, clopper_pearson
from attacks.core.records import Records
from attacks.errors import DataSplitError


class Classifier(Protocol):
    """What training gives."""

    def predict(self, inputs: Floats) -> Ints:
        """(B, *shape) → (B,) labels."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoisoningData:
    """The records of a poisoning experiment.

    ``train``: clean training records. ``test``: the evaluator's records, which the adversary does
    not have. ``low``, ``high``: the interval that every input value has to lie in, poison included.

    Raises DataSplitError if a side is empty, shapes differ, or a value or label lies outside.
    """

    train: Records
    test: Records
    low: float
    high: float
    classes: int

    def __post_init__(self) -> None:
        if not len(self.train) or not len(self.test) or self.train.shape != self.test.shape:
            raise DataSplitError(
                f"{len(self.train)} training records of shape {self.train.shape} and "
                f"{len(self.test)} test records of shape {self.test.shape}: both sides need "
                "records of one shape"
            )
        if self.classes < 2 or not self.low < self.high:
            raise DataSplitError(
                f"poisoning needs two classes and low < high, got {self.classes} classes and "
                f"[{self.low:g}, {self.high:g}]"
            )
        for side in (self.train, self.test):
            check_poison(side, shape=side.shape, low=self.low, high=self.high, classes=self.classes)

    def check_class(self, label: int) -> None:
        """Raise DataSplitError for a class that the data do not have."""
        if not 0 <= label < self.classes:
            raise DataSplitError(f"class {label} among {self.classes} classes, which count from 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisonBudget:
    """``fraction``: poison records that may be added, as a share of the clean training records.

    Raises DataSplitError unless 0 < fraction ≤ 1.
    """

    fraction: float

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise DataSplitError(
                f"a poison budget is a share of the training set in (0, 1], got {self.fraction}"
            )

    @classmethod
    def of_records(cls, records: int, *, clean: int) -> PoisonBudget:
        """``records`` poison records beside ``clean`` clean ones.

        Raises DataSplitError unless 1 ≤ records ≤ clean.
        """
        if not 1 <= records <= clean:
            raise DataSplitError(
                f"a poison budget of {records} records does not fit a training set of {clean}: "
                f"ask for 1 to {clean}"
            )
        return cls(fraction=records / clean)

    def records(self, clean: int) -> int:
        """Poison records beside ``clean`` clean ones, rounded down, as the paper's constraint is.

        Raises DataSplitError if that is none.
        """
        # A count that was divided by ``clean`` may come back a rounding error short.
        count = int(np.floor(self.fraction * clean + 1e-9))
        if count < 1:
            raise DataSplitError(
                f"{self.fraction:.3%} of {clean} records is less than one poison record: raise "
                f"the budget to {1 / max(1, clean):.3%} or more"
            )
        return count


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoisonedSet:
    """Clean and poison records in one set; ``is_poison`` (B,) is the truth that scoring reads."""

    records: Records
    is_poison: Bools

    def __post_init__(self) -> None:
        if self.is_poison.shape != (len(self.records),) or self.is_poison.dtype != np.bool_:
            raise DataSplitError(
                f"{len(self.records)} records do not fit a poison mask of shape "
                f"{self.is_poison.shape}"
            )

    @classmethod
    def of(cls, clean: Records, poison: Records) -> PoisonedSet:
        """Clean records first; DataSplitError if the shapes of a record differ."""
        if clean.shape != poison.shape:
            raise DataSplitError(
                f"poison of shape {poison.shape} does not fit clean records of {clean.shape}"
            )
        return cls(
            records=Records(
                inputs=np.concatenate([clean.inputs, poison.inputs]),
                labels=np.concatenate([clean.labels, poison.labels]),
            ),
            is_poison=np.arange(len(clean) + len(poison)) >= len(clean),
        )

    def kept(self, keep: Bools) -> Records:
        """What a filter lets through, (B,) mask; DataSplitError for one of another length."""
        check_mask(keep, len(self.records))
        return self.records.select(keep)


def check_poison(
    records: Records, *, shape: tuple[int, ...], low: float, high: float, classes: int
) -> None:
    """Raise DataSplitError unless records have this shape and lie within the allowed values."""
    if records.shape != shape:
        raise DataSplitError(f"expected records of shape {shape}, got {records.shape}")
    if not len(records):
        return
    if int(records.labels.max()) >= classes:
        raise DataSplitError(
            f"a label of {int(records.labels.max())} among {classes} classes, which count from 0"
        )
    excess = max(low - float(records.inputs.min()), float(records.inputs.max()) - high)
    if excess > 1e-6 * max(1.0, high - low):
        raise DataSplitError(
            f"values lie up to {excess:.3g} outside [{low:g}, {high:g}]: scale the records, or "
            "state the interval that they really lie in"
        )


def check_mask(keep: Bools, count: int) -> None:
    """Raise DataSplitError unless ``keep`` says yes or no for ``count`` records."""
    if keep.shape != (count,) or keep.dtype != np.bool_:
        raise DataSplitError(
            f"a filter answers one yes or no for each of {count} records, got {keep.dtype} of "
            f"shape {keep.shape}"
        )


def removal(keep: Bools, is_poison: Bools) -> dict[str, Estimate]:
    """What a filter took out: "poison_removed" and "clean_removed", as shares of either side.

    Without poison there is only the latter. Intervals are Clopper and Pearson's.
    """
    check_mask(keep, len(is_poison))
    sides = {"poison_removed": is_poison, "clean_removed": ~is_poison}
    return {
        name: clopper_pearson(int(np.count_nonzero(~keep[side])), int(np.count_nonzero(side)))
        for name, side in sides.items()
        if side.any()
    }
