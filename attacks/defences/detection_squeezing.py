"""Feature squeezing (Xu, Evans, Qi 2018): does the answer survive a coarser input?

    record ─────────────► oracle ─► p(x) ──┐
       └─► squeezer k ──► oracle ─► p(x_k) ┴─► score = max over k of |p(x) − p(x_k)|₁

A clean record is classified alike after its bit depth is cut or its pixels are smoothed; a moved
one often is not (arXiv:1704.01155). Each squeezer asks one more record per answer, which the
ledger counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from attacks.core.arrays import Floats
from attacks.core.oracle import Oracle
from attacks.errors import DataSplitError

# (B, *shape) → the same shape, coarser. Its gradient is useful rather than true.
Squeezer = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class BitDepth:
    """Values rounded to 2^``bits`` levels between ``low`` and ``high``; the gradient passes
    straight through, since that of rounding is zero."""

    bits: int
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.bits < 1 or not self.low < self.high:
            raise DataSplitError(f"a bit depth is at least 1 and low < high, got {self}")

    def __call__(self, inputs: Tensor) -> Tensor:
        steps = 2**self.bits - 1
        width = self.high - self.low
        rounded: Tensor = ((inputs - self.low) / width * steps).round() / steps * width + self.low
        return inputs + (rounded - inputs).detach()


@dataclass(frozen=True, slots=True, kw_only=True)
class MedianSmoothing:
    """The median of ``size`` × ``size`` pixels around each, mirrored at the borders.

    ``image``: (height, width) of the last values of a record, whether or not it is flat; leading
    axes are channels. An even size takes the upper of the two middle values, from windows that
    reach further up and left, as SciPy's filter does.
    """

    size: int
    image: tuple[int, int]

    def __post_init__(self) -> None:
        if not 2 <= self.size <= min(self.image):
            raise DataSplitError(
                f"a window of {self.size} pixels does not fit an image of {self.image}"
            )

    def __call__(self, inputs: Tensor) -> Tensor:
        height, width = self.image
        if inputs[0].numel() % (height * width):
            raise DataSplitError(
                f"records of shape {tuple(inputs.shape[1:])} are no images of {self.image}"
            )
        pixels = inputs.reshape(len(inputs), -1, height, width)
        rows, columns = self._around(height), self._around(width)
        windows = pixels[:, :, rows][..., columns]  # (B, C, H, size, W, size)
        flat = windows.transpose(3, 4).flatten(4)  # (B, C, H, W, size²)
        middle = flat.sort(dim=-1).values[..., self.size**2 // 2]
        return middle.reshape(inputs.shape)

    def _around(self, length: int) -> Tensor:
        """(length, size): indices of each window, mirrored so that the edge counts twice."""
        places = torch.arange(length)[:, None] + torch.arange(self.size) - self.size // 2
        places = torch.where(places < 0, -1 - places, places)
        return torch.where(places >= length, 2 * length - 1 - places, places)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSqueezing:
    """The largest L1 distance between answers to a record and to its squeezed versions."""

    squeezers: tuple[Squeezer, ...]

    def __post_init__(self) -> None:
        if not self.squeezers:
            raise DataSplitError("feature squeezing needs at least one squeezer")

    name: ClassVar[str] = "feature squeezing"

    @property
    def records_per_score(self) -> int:
        return 1 + len(self.squeezers)

    def scores(self, oracle: Oracle, records: Floats) -> Floats:
        """(B,) in [0, 2]; asks ``records_per_score`` records for each, in one query.

        Raises AbilityError for an oracle that answers only labels.
        """
        inputs = torch.as_tensor(records)
        squeezed = [np.asarray(squeeze(inputs).numpy()) for squeeze in self.squeezers]
        answer = oracle.query(np.concatenate([records, *squeezed]))
        answers = answer.require_probabilities().reshape(self.records_per_score, len(records), -1)
        distances = np.abs(answers[1:] - answers[:1]).sum(axis=2)
        result: Floats = distances.max(axis=0)
        return result

    def gradient_score(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        def score(inputs: Tensor) -> Tensor:
            plain = torch.softmax(model(inputs), dim=1)
            distances = [
                (torch.softmax(model(squeeze(inputs)), dim=1) - plain).abs().sum(dim=1)
                for squeeze in self.squeezers
            ]
            return torch.stack(distances).amax(dim=0)

        return score
