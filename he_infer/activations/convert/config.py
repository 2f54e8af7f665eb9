"""What the replacement of activations is told, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he_infer.activations.approx import Interval, Method, minimax
from he_infer.errors import TrainingError


@dataclass(frozen=True, slots=True, kw_only=True)
class PolynomializeConfig:
    """How activations are replaced and the network is fine-tuned afterwards.

    ``margin``: the calibrated interval is widened by this factor around its centre.
    ``insert_batch_norm``: put an (initially neutral) batch norm before activations without one.
    ``epochs_per_site``: epochs after each single replacement (SMART-PAF's progressive
    approximation, arXiv:2404.03216); 0 replaces all at once. ``epochs``: final ones.
    ``coefficient_rate``: learning rate of the polynomial coefficients, ``learning_rate`` of the
    rest. ``range_limit``: |u| from which the range penalty grows, u = ±1 at the interval's ends.
    ``label_weight``, ``kl_weight``, ``logit_weight``: cross entropy with the labels, KL
    divergence from the original's softmax at ``temperature``, squared difference of the logits.
    ``min_leading``: |a| of a quadratic is kept above this share of its starting value, because
    a compiled quadratic is shifted by b/2a.
    Raises TrainingError for values out of range.
    """

    method: Method = minimax
    degree: int = 2
    margin: float = 1.1
    insert_batch_norm: bool = True
    epochs_per_site: int = 1
    epochs: int = 4
    batch_size: int = 128
    learning_rate: float = 2e-3
    coefficient_rate: float = 2e-3
    range_limit: float = 1.0
    range_weight: float = 1.0
    label_weight: float = 0.5
    kl_weight: float = 1.0
    logit_weight: float = 0.05
    temperature: float = 3.0
    min_leading: float = 0.1

    def __post_init__(self) -> None:
        for name, value in self._values(
            "batch_size", "learning_rate", "coefficient_rate", "range_limit", "temperature"
        ):
            if not (np.isfinite(value) and value > 0):
                raise TrainingError(f"{name} is {value}: expected a positive number")
        for name, value in self._values(
            "epochs_per_site", "epochs", "range_weight", "label_weight", "kl_weight", "logit_weight"
        ):
            if not (np.isfinite(value) and value >= 0):
                raise TrainingError(f"{name} is {value}: expected 0 or more")
        if not (np.isfinite(self.margin) and self.margin >= 1.0):
            raise TrainingError(f"margin is {self.margin}: expected 1 or more")
        if not 0.0 <= self.min_leading <= 1.0:
            raise TrainingError(f"min_leading is {self.min_leading}: expected 0 to 1")

    def _values(self, *names: str) -> list[tuple[str, float]]:
        return [(name, getattr(self, name)) for name in names]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """Fine-tuning records: ``inputs`` (B, …) float32; ``labels`` (B,) int64, or None to distil
    from the original network alone. Raises TrainingError if they do not fit together."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if len(self.inputs) < 2:
            raise TrainingError(f"{len(self.inputs)} training records: expected at least 2")
        if self.labels is not None and self.labels.shape != (len(self.inputs),):
            raise TrainingError(
                f"{len(self.inputs)} inputs need as many labels, got shape {self.labels.shape}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteReport:
    """One replaced activation.

    ``interval``: where the polynomial was fitted; ``sup_error``: its measured largest error
    there, before fine-tuning. ``seen`` and ``outside``: smallest and largest input on the
    calibration sample in the finished network, and the fraction of inputs off the interval.
    """

    path: str
    function: str
    degree: int
    interval: Interval
    sup_error: float
    seen: Interval
    outside: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PolynomializeReport:
    """What was replaced, what was left (in words), and the mean loss of each epoch."""

    sites: tuple[SiteReport, ...]
    left: tuple[str, ...]
    losses: tuple[float, ...]
