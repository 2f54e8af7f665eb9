"""Spectral signatures: poison in a class shows along the first direction of its features.

    features of class y, centred ──► first right singular vector v ──► score ⟨f − μ_y, v⟩²
    the largest scores, 1.5·ε of the class, are dropped

Source: Tran, Li and Madry, Spectral signatures in backdoor attacks, NeurIPS 2018, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attacks.core.arrays import Bools, Floats
from attacks.core.records import Records
from attacks.errors import DataSplitError


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectralSignatures:
    """``expected``: the share ε of a class that the defender fears is poison. ``margin``: how many
    times that is dropped, from every class, since which one is poisoned is not known; 1.5 in the
    paper.

    Raises DataSplitError unless 0 < expected < 1 and margin is positive.
    """

    expected: float
    margin: float = 1.5

    def __post_init__(self) -> None:
        if not 0 < self.expected < 1 or not self.margin > 0:
            raise DataSplitError(
                f"spectral signatures expect a share of poison in (0, 1) and a positive margin, "
                f"got {self.expected} and {self.margin}"
            )

    def fit(self, records: Records) -> Bools:
        """(B,) True for what is kept. ``records``: features (B, features) with labels as given.

        Never a whole class is dropped. Raises DataSplitError if there is nothing to fit on.
        """
        if not len(records):
            raise DataSplitError("spectral signatures were fitted on nothing: give features")
        scores = signature_scores(records)
        keep = np.ones(len(records), dtype=np.bool_)
        for label in np.unique(records.labels):
            rows = np.flatnonzero(records.labels == label)
            dropped = min(round(self.margin * self.expected * len(rows)), len(rows) - 1)
            keep[rows[np.argsort(-scores[rows], kind="stable")[:dropped]]] = False
        return keep


def signature_scores(records: Records) -> Floats:
    """(B,) squared projection of each record's features on its class's first direction."""
    features = records.inputs.reshape(len(records), -1)
    scores = np.zeros(len(records))
    for label in np.unique(records.labels):
        rows = np.flatnonzero(records.labels == label)
        centred = features[rows] - features[rows].mean(axis=0)
        _, _, directions = np.linalg.svd(centred, full_matrices=False)
        scores[rows] = (centred @ directions[0]) ** 2
    return scores
