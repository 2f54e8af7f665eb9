"""Robust accuracy as the rows on defences state it: the worst of several starts of PGD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from attacks.core.intervals import Estimate, clopper_pearson
from attacks.core.oracle import Oracle
from attacks.core.records import Records
from attacks.defences.adversarial_training import ProjectedGradient
from attacks.training.perturbed import moved_records

STARTS: Final = 3
STEPS: Final = 40


def moved(
    network: nn.Module, records: Records, attack: ProjectedGradient, *, seed: int = 0
) -> NDArray[np.float64]:
    """The records as the attack moves them, within [0, 1]."""
    return moved_records(network, records, attack, low=0.0, high=1.0, seed=seed)


def starts(network: nn.Module, records: Records, epsilon: float) -> list[NDArray[np.float64]]:
    """The records moved from STARTS random starts each."""
    attack = ProjectedGradient(epsilon=epsilon, steps=STEPS, step_share=0.1)
    return [moved(network, records, attack, seed=seed) for seed in range(STARTS)]


def accuracy(
    oracle: Oracle, tries: Sequence[NDArray[np.float64]], labels: NDArray[np.int64]
) -> Estimate:
    """Share of records that are right in all of the tries."""
    right = np.ones(len(labels), dtype=np.bool_)
    for inputs in tries:
        right &= oracle.query(inputs).labels == labels
    return clopper_pearson(int(right.sum()), len(right))
