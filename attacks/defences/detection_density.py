"""A density of clean inputs: how far a record lies from the nearest class (Lee et al. 2018).

score(x) = min over classes c of (φ(x) − μ_c)ᵀ Σ⁻¹ (φ(x) − μ_c), with one Σ for all classes

Lee et al. (arXiv:1807.03888) take φ from hidden layers of the model that is defended. A client of
an encrypted service does not have them, but it has clean records of its own. So φ is the input
itself, its principal components, or a public network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from attacks.core.arrays import Floats
from attacks.core.oracle import Oracle
from attacks.core.records import Records
from attacks.errors import DataSplitError

_PART_RECORDS = 2048


# (B, *shape) → (B, features) in float64, with a gradient.
FeatureMap = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrincipalComponents:
    """Coordinates along ``directions`` (features, values) from ``mean`` (values,)."""

    mean: Tensor
    directions: Tensor

    @classmethod
    def fitted(cls, clean: Records, *, count: int) -> PrincipalComponents:
        """The ``count`` directions of most variance among clean records.

        Raises DataSplitError for more directions than records or values have.
        """
        flat = clean.inputs.reshape(len(clean), -1)
        if not 1 <= count <= min(len(flat) - 1, flat.shape[1]):
            raise DataSplitError(
                f"{len(flat)} records of {flat.shape[1]} values do not have {count} components"
            )
        mean = flat.mean(axis=0)
        _, _, right = np.linalg.svd(flat - mean, full_matrices=False)
        return cls(mean=torch.as_tensor(mean), directions=torch.as_tensor(right[:count].copy()))

    def __call__(self, inputs: Tensor) -> Tensor:
        return (inputs.flatten(1) - self.mean) @ self.directions.T


class PublicNetwork:
    """The answers of a network that is public, such as one trained on other data."""

    def __init__(self, network: nn.Module) -> None:
        self._network = copy.deepcopy(network).double().eval().requires_grad_(False)

    def __call__(self, inputs: Tensor) -> Tensor:
        features: Tensor = self._network(inputs)
        return features.flatten(1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DensityDetector:
    """Lee et al. 2018. It does not ask the oracle anything.

    ``means`` (classes, features) and ``whitening`` (features, features), W with WᵀW = Σ⁻¹, are
    those of ``features`` of clean records.
    """

    features: FeatureMap
    means: Tensor
    whitening: Tensor

    name: ClassVar[str] = "density of clean inputs"

    @classmethod
    def fitted(
        cls, clean: Records, *, features: FeatureMap | None = None, shrinkage: float = 0.01
    ) -> DensityDetector:
        """From clean records with their labels; every class needs two of them.

        ``features``: None takes the inputs. ``shrinkage``: the share of Σ that is a multiple of
        the identity, of equal trace, without which a value that never varies would count
        without bound (Ledoit and Wolf 2004). Raises DataSplitError for a detector fitted on
        nothing, or a share outside (0, 1].
        """
        if not len(clean):
            raise DataSplitError("a detector is fitted on clean records, and there are none")
        if not 0 < shrinkage <= 1:
            raise DataSplitError(f"shrinkage lies in (0, 1], got {shrinkage}")
        phi: FeatureMap = nn.Flatten() if features is None else features
        counts = np.bincount(clean.labels)
        if (counts[counts > 0] < 2).any():
            raise DataSplitError(
                "a detector needs two clean records of every class, got one of class "
                f"{int(np.flatnonzero(counts == 1)[0])}"
            )
        with torch.no_grad():
            found = phi(torch.as_tensor(clean.inputs)).double()  # (B, features)
        classes = np.flatnonzero(counts)
        labels = torch.as_tensor(np.searchsorted(classes, clean.labels))
        means = torch.stack([found[labels == c].mean(dim=0) for c in range(len(classes))])
        within = found - means[labels]
        covariance = within.T @ within / max(1, len(found) - len(classes))
        width = len(covariance)
        average = float(covariance.trace()) / width
        if not average > 0:
            raise DataSplitError("the clean records of each class are all alike: no density")
        shrunk = (1 - shrinkage) * covariance + shrinkage * average * torch.eye(
            width, dtype=torch.float64
        )
        # Σ = L Lᵀ, hence W = L⁻¹.
        root = torch.linalg.cholesky(shrunk)
        whitening = torch.linalg.solve_triangular(
            root, torch.eye(width, dtype=torch.float64), upper=False
        )
        return cls(features=phi, means=means, whitening=whitening)

    def scores(self, oracle: Oracle, records: Floats) -> Floats:
        """Squared Mahalanobis distance to the nearest class, (B,)."""
        del oracle
        with torch.no_grad():
            parts = [
                self.distance(part) for part in torch.split(torch.as_tensor(records), _PART_RECORDS)
            ]
        return np.asarray(torch.cat(parts).numpy(), dtype=np.float64)

    def gradient_score(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        del model
        return self.distance

    def distance(self, inputs: Tensor) -> Tensor:
        """(B, *shape) float64 → (B,), with a gradient."""
        whitened = self.features(inputs).double() @ self.whitening.T
        centers = self.means @ self.whitening.T
        # |a − b|² expanded would lose the small differences that are the score.
        gaps = whitened[:, None, :] - centers[None, :, :]
        return gaps.square().sum(dim=2).amin(dim=1)
