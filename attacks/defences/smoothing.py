"""Randomised smoothing (Cohen, Rosenfeld, Kolter 2019, arXiv:1902.02918) over any oracle.

    record ──n copies + N(0, σ²), clipped──► oracle ──labels──► votes ──Clopper-Pearson──► class, R

The smoothed classifier answers the class that is most likely under noise. If that class has
probability p > 1/2 at least, no change of the record by less than R = σ Φ⁻¹(p) in L2 changes the
smoothed answer. Clipping to the input range belongs to the classifier that is smoothed, so the
theorem holds for it too. It holds for exact arithmetic.

Every noisy copy is a record that the oracle is asked about, so an answer costs ``copies`` records
of any budget and of any bill. A request may hold copies of several records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor, nn

from attacks.core.arrays import Floats, Ints
from attacks.core.intervals import clopper_pearson
from attacks.core.oracle import Oracle, check_range, check_records
from attacks.core.result import Curve
from attacks.errors import DataSplitError, TooFewRecordsError
from attacks.training.perturbed import Batch, PerturbedTraining
from attacks.training.recipe import TwinRecipe

ABSTAINED: Final = -1
# Of an oracle that takes any number of records at once.
_PART_RECORDS: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Certificates:
    """``labels`` (B,): the smoothed class, or ABSTAINED; ``radii`` (B,) in L2 input units, 0 for
    an abstention. Each certificate is wrong with probability ``alpha`` at most."""

    labels: Ints
    radii: Floats
    alpha: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothing:
    """``sigma``: of the noise, in input units. ``copies``: noisy records per answer;
    ``selection``: further ones that choose the class to certify, apart from those that bound
    its probability. ``alpha``: how often an answer that is not an abstention may be wrong.

    Raises DataSplitError for numbers that make no sense, TooFewRecordsError if so few copies could
    never certify anything.
    """

    sigma: float
    copies: int = 1000
    selection: int = 100
    alpha: float = 0.001

    def __post_init__(self) -> None:
        if not self.sigma > 0 or not 0 < self.alpha < 1 or self.selection < 1 or self.copies < 1:
            raise DataSplitError(
                f"smoothing takes a positive sigma, alpha in (0, 1) and copies, got {self}"
            )
        # All votes alike give p^n = α, and p has to exceed a half.
        needed = int(np.ceil(np.log(self.alpha) / np.log(0.5))) + 1
        if self.copies < needed:
            raise TooFewRecordsError(
                f"{self.copies} copies that all agree leave a probability below one half open at "
                f"alpha {self.alpha:g}: take at least {needed}",
                needed=needed,
            )

    @property
    def records_per_certificate(self) -> int:
        return self.selection + self.copies

    def predict(self, oracle: Oracle, inputs: ArrayLike, rng: np.random.Generator) -> Ints:
        """(B, *shape) → (B,): the smoothed class, or ABSTAINED where the votes are too close.

        An answer differs from the true smoothed class with probability alpha at most. Asks
        ``copies`` records for each. Raises DataSplitError for inputs that do not fit.
        """
        votes = self._votes(oracle, inputs, self.copies, rng)
        order = np.argsort(votes, axis=1)
        rows = np.arange(len(votes))
        first, second = votes[rows, order[:, -1]], votes[rows, order[:, -2]]
        # Two-sided, by the symmetry of a fair coin: twice the tail.
        tails = 2 * stats.binom.sf(first - 1, first + second, 0.5)
        return np.where(tails <= self.alpha, order[:, -1], ABSTAINED).astype(np.int64)

    def certify(self, oracle: Oracle, inputs: ArrayLike, rng: np.random.Generator) -> Certificates:
        """Class and certified radius of each of (B, *shape) records, or an abstention.

        Asks ``records_per_certificate`` records for each; errors as for ``predict``.
        """
        chosen = self._votes(oracle, inputs, self.selection, rng).argmax(axis=1)
        votes = self._votes(oracle, inputs, self.copies, rng)[np.arange(len(chosen)), chosen]
        radii = np.array([self.radius(int(count)) for count in votes])
        labels = np.where(radii > 0, chosen, ABSTAINED).astype(np.int64)
        return Certificates(labels=labels, radii=radii, alpha=self.alpha)

    def radius(self, votes: int) -> float:
        """σ Φ⁻¹ of the one-sided lower bound of votes / copies; 0 unless it exceeds one half."""
        # Both tails of a two-sided interval hold α, so that its lower end is one-sided at α.
        lower = clopper_pearson(votes, self.copies, confidence=1 - 2 * self.alpha).low
        return self.sigma * float(stats.norm.ppf(lower)) if lower > 0.5 else 0.0

    def _votes(
        self, oracle: Oracle, inputs: ArrayLike, copies: int, rng: np.random.Generator
    ) -> Ints:
        """(B, classes): how many of the copies of each record got each label."""
        info = oracle.info
        records = check_records(inputs, info)
        check_range(records, info)
        votes = np.zeros((len(records), info.classes), dtype=np.int64)
        size = info.batch or _PART_RECORDS
        for first in range(0, len(records) * copies, size):
            owner = np.arange(first, min(first + size, len(records) * copies)) // copies
            noise = rng.normal(scale=self.sigma, size=(len(owner), *info.input_shape))
            noisy = np.clip(records[owner] + noise, info.low, info.high)
            np.add.at(votes, (owner, oracle.query(noisy).labels), 1)
        return votes


def certified_accuracy(certificates: Certificates, labels: Ints, radii: Sequence[float]) -> Curve:
    """Share of records with the right class certified at each radius, with 95 % intervals.

    Raises DataSplitError if labels do not fit.
    """
    if labels.shape != certificates.labels.shape or not len(labels):
        raise DataSplitError(
            f"labels of shape {labels.shape} do not fit {len(certificates.labels)} certificates"
        )
    right = certificates.labels == labels
    shares = [
        # At radius 0 it is enough not to abstain; beyond, the radius has to be certified.
        clopper_pearson(int((right & (certificates.radii >= radius)).sum()), len(labels))
        for radius in radii
    ]
    return Curve(
        x=tuple(float(radius) for radius in radii),
        y=tuple(share.value for share in shares),
        low=tuple(share.low for share in shares),
        high=tuple(share.high for share in shares),
        x_label="certified L2 radius",
        y_label="certified accuracy",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianNoise:
    """Training inputs with N(0, ``sigma``²) added and clipped, as the smoothed ones will be."""

    sigma: float

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise DataSplitError(f"noise needs a positive sigma, got {self.sigma}")

    def moved(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, *shape); neither model nor labels matter."""
        inputs = batch.inputs
        noise = torch.randn(inputs.shape, generator=batch.generator, dtype=inputs.dtype)
        return (inputs + self.sigma * noise).clamp(batch.low, batch.high)


def gaussian_training(recipe: TwinRecipe, *, sigma: float) -> TwinRecipe:
    """The recipe with both twins trained on noisy members: without it, few noisy copies are
    classified alike and little is certified."""
    return replace(
        recipe,
        name=f"{recipe.name}, noise {sigma:g}",
        procedure=PerturbedTraining(perturbation=GaussianNoise(sigma=sigma)),
    )


class MeanOverNoise(nn.Module):
    """What an adversary differentiates to move a smoothed classifier (Salman et al. 2019).

    The logarithm of the mean softmax over ``copies`` draws of noise, fixed when this is made:
    (B, *shape) → (B, classes). ``model`` is used in evaluation mode.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sigma: float,
        copies: int,
        shape: tuple[int, ...],
        low: float,
        high: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.model = model.eval()
        self.low, self.high = low, high
        noise = torch.randn((1, copies, *shape), generator=generator)
        self.register_buffer("noise", sigma * noise)

    noise: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        noise = self.noise.to(inputs.dtype)
        noisy = (inputs[:, None] + noise).clamp(self.low, self.high)  # (B, copies, *shape)
        logits = self.model(noisy.flatten(0, 1))
        shares = torch.softmax(logits, dim=1).reshape(*noisy.shape[:2], -1).mean(dim=1)
        return torch.log(shares.clamp_min(1e-12))
