"""An oracle as evasion attacks ask it: tensors in, and noise averaged away where there is some."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attacks.core.arrays import Floats
from attacks.core.oracle import Answer, Oracle
from attacks.errors import DataSplitError


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Asks every record ``repeats`` times in one request: expectation over the oracle's noise.

    Scores are averaged (Athalye et al. 2018, section 4), labels are put to the vote.
    """

    oracle: Oracle
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise DataSplitError(f"every record is asked at least once, got {self.repeats}")

    def scores(self, inputs: Tensor) -> tuple[Tensor, float]:
        """(B, *shape) → logits or log-probabilities (B, classes), and the error that noise leaves
        in each: one standard deviation, 0 where every record is asked once.

        Raises AbilityError for labels only.
        """
        scores = self._ask(inputs).require_scores().reshape(self.repeats, len(inputs), -1)
        error = 0.0
        if self.repeats > 1:
            # One noise for all: a few repeats of one record alone would tell little of it.
            variance = float(scores.var(axis=0, ddof=1).mean())
            error = math.sqrt(variance / self.repeats)
        return torch.from_numpy(scores.mean(axis=0)), error

    def labels(self, inputs: Tensor) -> Tensor:
        """(B, *shape) → (B,), by majority."""
        labels = self._ask(inputs).labels.reshape(self.repeats, len(inputs))
        if self.repeats == 1:
            return torch.from_numpy(labels[0])
        votes = np.eye(self.oracle.info.classes)[labels].sum(axis=0)
        return torch.from_numpy(votes.argmax(axis=1))

    def _ask(self, inputs: Tensor) -> Answer:
        records: Floats = inputs.detach().numpy()
        return self.oracle.query(np.concatenate([records] * self.repeats))


def generator_of(rng: np.random.Generator) -> torch.Generator:
    """A torch stream that follows from ``rng``."""
    return torch.Generator().manual_seed(int(rng.integers(2**62)))
