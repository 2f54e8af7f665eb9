"""What an evasion attack is given: records to be moved, how far, and what the adversary holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.core.oracle import OracleInfo
from attacks.core.records import Records
from attacks.errors import AbilityError, DataSplitError
from attacks.evasion.goals import Goal
from attacks.evasion.norms import Ball, Linf, Norm
from attacks.extraction.setting import ExtractionData


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvasionData:
    """``records``: to be moved, with their true labels. ``low``, ``high``: the interval that every
    value stays in. ``epsilon``: how far a record may be moved in ``norm``, in input units.
    ``wanted`` (B,): classes to be taken for, None for any wrong one. ``model``: the network in
    the clear, for adversaries who hold its weights; None where they do not. ``stealing``: what an
    adversary without weights steals a substitute with.

    Raises DataSplitError for an epsilon that is not positive or moves a record across the whole
    interval and further, for records outside it, and for a wanted class that is the true one.
    """

    records: Records
    low: float
    high: float
    epsilon: float
    norm: Norm = field(default_factory=Linf)
    wanted: NDArray[np.int64] | None = None
    model: nn.Module | None = None
    stealing: ExtractionData | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.high - self.low) and self.low < self.high):
            raise DataSplitError(f"expected low < high, got [{self.low}, {self.high}]")
        if not len(self.records):
            raise DataSplitError("evasion moves at least one record, got none")
        widest = self.norm.diameter(self.high - self.low, math.prod(self.records.shape))
        if not 0 < self.epsilon <= widest * (1 + 1e-9):
            raise DataSplitError(
                f"epsilon lies above 0 and up to {widest:g}, the longest {self.norm.name} change "
                f"within [{self.low:g}, {self.high:g}], got {self.epsilon:g}"
            )
        inputs = self.records.inputs
        if inputs.min() < self.low or inputs.max() > self.high:
            raise DataSplitError(
                f"records reach from {inputs.min():g} to {inputs.max():g} and are to stay within "
                f"[{self.low:g}, {self.high:g}]: scale them, or state a wider interval"
            )
        if self.wanted is not None:
            self._check_wanted(self.wanted)

    def _check_wanted(self, wanted: NDArray[np.int64]) -> None:
        if wanted.shape != self.records.labels.shape or wanted.dtype != np.int64:
            raise DataSplitError(
                f"expected one wanted class for each of {len(self.records)} records, int64, got "
                f"{wanted.shape}, {wanted.dtype}"
            )
        same = int(np.count_nonzero(wanted == self.records.labels))
        if same or wanted.min() < 0:
            raise DataSplitError(
                f"{same} records are wanted to be taken for what they are, or for classes below "
                "0: give classes other than the true ones"
            )

    @property
    def ball(self) -> Ball:
        """Where each record may be moved."""
        return Ball(norm=self.norm, epsilon=self.epsilon, low=self.low, high=self.high)

    def inputs(self) -> Tensor:
        """The records, (B, *shape) float64."""
        return torch.from_numpy(self.records.inputs.copy())

    def goal(self) -> Goal:
        """What is wanted of every record."""
        wanted = None if self.wanted is None else torch.from_numpy(self.wanted.copy())
        return Goal(labels=torch.from_numpy(self.records.labels.copy()), wanted=wanted)

    def within(self, norm: Norm | None) -> EvasionData:
        """The same in another norm, its ball of equal volume; as it is for None or its own."""
        if norm is None or norm.name == self.norm.name:
            return self
        if self.norm.name != Linf().name:
            raise DataSplitError(
                f"epsilon is stated in {self.norm.name}, and only one of Linf says what is equal "
                f"to it in {norm.name}: state it there"
            )
        equal = norm.equivalent(self.epsilon, math.prod(self.records.shape))
        widest = norm.diameter(self.high - self.low, math.prod(self.records.shape))
        return replace(self, norm=norm, epsilon=min(equal, widest))

    def require_model(self) -> nn.Module:
        """The network in the clear; AbilityError for an adversary who does not hold it."""
        if self.model is None:
            raise AbilityError(
                "this attack takes gradients of the network, and its weights are not at hand: "
                "steal it first, or take an attack that only asks"
            )
        return self.model

    def require_stealing(self) -> ExtractionData:
        """What to steal a substitute with; AbilityError if there is nothing."""
        if self.stealing is None:
            raise AbilityError(
                "this attack steals a substitute first, and has no records to steal it with"
            )
        return self.stealing

    def check_fits(self, info: OracleInfo) -> None:
        """Raise DataSplitError, before anything is asked, for records of another target."""
        labels = self.records.labels if self.wanted is None else self.wanted
        most = max(int(self.records.labels.max()), int(labels.max()))
        if self.records.shape != info.input_shape or most >= info.classes:
            raise DataSplitError(
                f"{info.name} takes records {info.input_shape} of {info.classes} classes, got "
                f"{self.records.shape} with classes up to {most}"
            )
        slack = 1e-6 * max(1.0, info.high - info.low)
        if self.low < info.low - slack or self.high > info.high + slack:
            raise DataSplitError(
                f"records are moved within [{self.low:g}, {self.high:g}], and {info.name} is "
                f"meant for [{info.low:g}, {info.high:g}]: move them there"
            )
