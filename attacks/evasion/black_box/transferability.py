"""How many adversarial examples made on one network fool another (Papernot et al. 2017)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from attacks.core.intervals import Estimate, clopper_pearson
from attacks.core.oracle import Oracle
from attacks.core.records import Records
from attacks.evasion.gradient.fgsm import perturb
from attacks.evasion.gradient.gradients import in_hand
from attacks.evasion.norms import Linf


def transfer_rate(module: nn.Module, oracle: Oracle, records: Records, epsilon: float) -> Estimate:
    """How many FGSM examples made on ``module`` the oracle gets wrong, of all ``records``.

    Papernot et al. 2017's transferability: also those count that it got wrong before. Examples
    stay within the oracle's interval; it is asked once about each.
    """
    moved: NDArray[np.float64] = perturb(
        in_hand(module),
        torch.from_numpy(records.inputs.copy()),
        torch.from_numpy(records.labels.copy()),
        epsilon=epsilon,
        norm=Linf(),
        low=oracle.info.low,
        high=oracle.info.high,
    ).numpy()
    labels = oracle.query(moved).labels
    return clopper_pearson(int(np.count_nonzero(labels != records.labels)), len(records))
