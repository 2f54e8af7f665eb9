"""Records of two classes, dense or sparse, and the linear models that tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from attacks.core.arrays import Floats, Ints
from attacks.core.intervals import Estimate, clopper_pearson
from attacks.core.records import Records
from attacks.errors import DataSplitError
from attacks.poisoning.certified.domains import Anywhere, Box, Domain
from attacks.poisoning.setting import PoisoningData

# Below this share of values that are not zero, a product with a sparse array is the faster one.
_SPARSE_BELOW: Final = 0.3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BinarySet:
    """``inputs`` (B, features) float64, an array or a scipy CSR array; ``signs`` (B,) −1.0 or 1.0.

    Raises DataSplitError if they do not fit together or a value is not finite.
    """

    inputs: Any
    signs: Floats

    def __post_init__(self) -> None:
        if self.inputs.ndim != 2 or self.signs.shape != self.inputs.shape[:1]:
            raise DataSplitError(
                f"inputs of shape {self.inputs.shape} do not fit signs of shape {self.signs.shape}"
            )
        if self.inputs.dtype != np.float64 or self.signs.dtype != np.float64:
            raise DataSplitError(
                f"inputs and signs are float64, got {self.inputs.dtype} and {self.signs.dtype}"
            )
        if not np.isin(self.signs, (-1.0, 1.0)).all():
            raise DataSplitError("a sign is −1 or 1")
        values = self.inputs.data if self.is_sparse else self.inputs
        if not np.isfinite(values).all():
            raise DataSplitError("a record holds a value that is not finite")

    @classmethod
    def of(cls, records: Records, *, negative: int = 0, positive: int = 1) -> BinarySet:
        """The records of two classes, flattened; DataSplitError if either has none."""
        chosen = records.select(np.isin(records.labels, (negative, positive)))
        signs = np.where(chosen.labels == positive, 1.0, -1.0)
        if np.unique(signs).size < 2 or negative == positive:
            raise DataSplitError(
                f"two classes with records are needed, got classes {negative} and {positive} of "
                f"{sorted(set(records.labels.tolist()))}"
            )
        width = int(np.prod(chosen.shape))
        return cls(inputs=chosen.inputs.reshape(len(chosen), width), signs=signs)

    def __len__(self) -> int:
        return int(self.inputs.shape[0])

    @property
    def features(self) -> int:
        return int(self.inputs.shape[1])

    @property
    def is_sparse(self) -> bool:
        return bool(sparse.issparse(self.inputs))

    @property
    def labels(self) -> Ints:
        """(B,) 0 for −1 and 1 for 1."""
        return (self.signs > 0).astype(np.int64)

    def select(self, chosen: NDArray[Any] | slice) -> BinarySet:
        """The records at these indices, or where a mask is True."""
        return BinarySet(inputs=self.inputs[chosen], signs=self.signs[chosen])


def joined(parts: Sequence[BinarySet]) -> BinarySet:
    """All records in a row, sparse if the first part is; DataSplitError if features differ."""
    widths = {part.features for part in parts}
    if len(widths) != 1:
        raise DataSplitError(f"sets of {sorted(widths)} features cannot be joined")
    inputs: Any
    if parts[0].is_sparse:
        inputs = sparse.csr_array(
            sparse.vstack([sparse.csr_array(part.inputs) for part in parts], format="csr")
        )
    else:
        inputs = np.concatenate(
            [part.inputs.toarray() if part.is_sparse else part.inputs for part in parts]
        )
    return BinarySet(inputs=inputs, signs=np.concatenate([part.signs for part in parts]))


def compact(inputs: Any) -> Any:
    """The same (B, features) values as a CSR array where most of them are zero."""
    if isinstance(inputs, np.ndarray) and np.count_nonzero(inputs) < _SPARSE_BELOW * inputs.size:
        return sparse.csr_array(inputs)
    return inputs


def inside(parameters: Floats, radius: float) -> Floats:
    """The nearest parameters in the ball of ``radius``."""
    nearest: Floats = parameters * min(1.0, radius / max(float(np.linalg.norm(parameters)), 1e-300))
    return nearest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearModel:
    """sign(⟨weights, x⟩ + bias); ``weights`` (features,). The bias counts in the norm."""

    weights: Floats
    bias: float

    @classmethod
    def of(cls, parameters: Floats) -> LinearModel:
        """From (features + 1,), the bias last."""
        return cls(weights=parameters[:-1], bias=float(parameters[-1]))

    @property
    def parameters(self) -> Floats:
        """(features + 1,), the bias last."""
        return np.append(self.weights, self.bias)

    @property
    def norm(self) -> float:
        return float(np.linalg.norm(self.parameters))

    def scores(self, inputs: Any) -> Floats:
        """(B, features) → (B,)"""
        return np.asarray(inputs @ self.weights, dtype=np.float64) + self.bias

    def predict(self, inputs: Any) -> Ints:
        """(B, features) → (B,) labels 0 or 1."""
        return (self.scores(inputs) > 0).astype(np.int64)

    def hinge(self, records: BinarySet) -> float:
        """Mean of max(0, 1 − y·score)."""
        return float(np.maximum(0.0, 1.0 - records.signs * self.scores(records.inputs)).mean())

    def error(self, test: BinarySet) -> Estimate:
        """Share of wrong signs, with Clopper and Pearson's interval."""
        wrong = int(np.count_nonzero(self.predict(test.inputs) != test.labels))
        return clopper_pearson(wrong, len(test))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BinaryData:
    """What a poisoning attack on a linear learner is given.

    ``train``: clean; ``test``: the evaluator's. ``domain``: where input values, poison's too, may
    lie. Raises DataSplitError if a side is empty or lacks a class, or features differ.
    """

    train: BinarySet
    test: BinarySet
    domain: Domain

    def __post_init__(self) -> None:
        if not len(self.test) or self.train.features != self.test.features:
            raise DataSplitError(
                f"training records of {self.train.features} features, {len(self.test)} test "
                f"records of {self.test.features}: both sides need records of one kind"
            )
        if np.unique(self.train.signs).size < 2:
            raise DataSplitError("the training set needs records of both classes")

    @classmethod
    def of(
        cls,
        data: PoisoningData,
        *,
        negative: int = 0,
        positive: int = 1,
        within_range: bool = True,
    ) -> BinaryData:
        """Two classes of ``data``; ``within_range`` False lets poison leave [low, high], as the
        paper does for images."""
        return cls(
            train=BinarySet.of(data.train, negative=negative, positive=positive),
            test=BinarySet.of(data.test, negative=negative, positive=positive),
            domain=Box(low=data.low, high=data.high) if within_range else Anywhere(),
        )
