"""Detection of adversarial records at the client, since the server cannot see queries.

    records ──score──► above the threshold? ──yes──► refused or flagged, the target is not asked
               │                            └─no──► oracle
        set on clean records

A detector gives one score per record, which is higher for records that look moved by an attack. The
threshold comes from clean records alone, so that no detector is tuned on the attack that judges it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor, nn

from attacks.core.arrays import Bools, Floats
from attacks.core.intervals import Estimate
from attacks.core.oracle import Answer, Oracle, check_records
from attacks.core.records import Records
from attacks.core.roc import auc, rates_at, require_records, threshold_for
from attacks.core.wrappers import _Wrapper
from attacks.errors import DataSplitError, RefusedError

FALSE_ALARMS = 0.05


class Detector(Protocol):
    """Gives records a score. It was fitted on clean ones."""

    @property
    def name(self) -> str: ...

    def scores(self, oracle: Oracle, records: Floats) -> Floats:
        """(B, *shape) → (B,), higher for records that look moved. Records that a detector asks
        the oracle about are on the oracle's ledger."""
        ...

    def gradient_score(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """The same scores, (B, *shape) → (B,), with a gradient.

        They are for an adversary who knows the detector and holds ``model``. Where the true
        gradient is zero, a useful one stands in (Athalye, Carlini, Wagner 2018).
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFilter:
    """``detector`` and the ``threshold`` above which it flags a record."""

    detector: Detector
    threshold: float

    @classmethod
    def calibrated(
        cls, detector: Detector, oracle: Oracle, clean: Records, *, false_alarms: float
    ) -> InputFilter:
        """The threshold that at most a share ``false_alarms`` of ``clean`` exceed.

        ``clean``: records that the detector was not fitted on. Raises DataSplitError without
        records, TooFewRecordsError if they cannot support the share.
        """
        if not len(clean):
            raise DataSplitError(
                f"{detector.name}: a threshold is set on clean records, and there are none"
            )
        require_records(false_alarms, len(clean))
        scores = detector.scores(oracle, clean.inputs)
        return cls(detector=detector, threshold=threshold_for(scores, false_alarms))

    def flags(self, oracle: Oracle, records: Floats) -> Bools:
        """(B,): which of the records look moved."""
        return self.detector.scores(oracle, records) > self.threshold


@final
class Refusing(_Wrapper):
    """Asks the oracle beneath only if no record of the query looks moved.

    Composes with the other wrappers. Raises RefusedError, which names the records, before the
    target is asked about them; what a detector itself asks is charged.
    """

    def __init__(self, oracle: Oracle, before: InputFilter) -> None:
        super().__init__(oracle, oracle.info.answering(oracle.info.answers, by="refusing"))
        self._filter = before

    def query(self, records: ArrayLike) -> Answer:
        array = check_records(records, self._info)
        flagged = tuple(np.flatnonzero(self._filter.flags(self._oracle, array)).tolist())
        if flagged:
            raise RefusedError(
                f"{self._filter.detector.name}: {len(flagged)} of {len(array)} records look moved "
                "and were not sent: leave them out to have the others answered",
                flagged=flagged,
            )
        return self._oracle.query(array)


@final
class Flagging(_Wrapper):
    """Asks the oracle beneath about every record, and keeps which of them look moved."""

    def __init__(self, oracle: Oracle, before: InputFilter) -> None:
        super().__init__(oracle, oracle.info)
        self._filter = before
        self._flagged: Bools = np.zeros(0, dtype=np.bool_)

    @property
    def flagged(self) -> Bools:
        """(B,): which records of the last query look moved."""
        return self._flagged

    def query(self, records: ArrayLike) -> Answer:
        array = check_records(records, self._info)
        self._flagged = self._filter.flags(self._oracle, array)
        return self._oracle.query(array)


def detection_figures(
    before: InputFilter, oracle: Oracle, *, clean: Floats, moved: Floats
) -> Mapping[str, Estimate]:
    """How well a filter tells ``moved`` from ``clean`` records, both of which are new to it.

    "auc" with DeLong's interval; "tpr" and "fpr" at the filter's threshold with Clopper-Pearson
    intervals. Raises DataSplitError unless there are records of both kinds.
    """
    if not len(clean) or not len(moved):
        raise DataSplitError("a detector is judged on clean and on moved records: give both")
    scores = before.detector.scores(oracle, np.concatenate([clean, moved]))
    is_moved = np.arange(len(scores)) >= len(clean)
    point = rates_at(scores, is_moved, before.threshold)
    return {"auc": auc(scores, is_moved), "tpr": point.tpr, "fpr": point.fpr}
