"""How many adversarial examples made on one network fool another (Papernot et al. 2017)."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from attacks.core.intervals import Estimate, clopper_pearson
from attacks.core.oracle import Oracle
from attacks.core.records import Records


def transfer_rate(module: nn.Module, oracle: Oracle, records: Records, epsilon: float) -> Estimate:
    """How many FGSM examples made on ``module`` the oracle gets wrong, of all ``records``.

    Papernot et al. 2017's transferability: also those count that it got wrong before. Examples
    stay within the oracle's interval; it is asked once about each. The network is evaluated in
    float64: single precision rounds the gradient of a confident one to nothing.
    """
    network = copy.deepcopy(module).double().eval().requires_grad_(False)
    inputs = torch.from_numpy(records.inputs.copy()).requires_grad_()
    loss = nn.functional.cross_entropy(
        network(inputs), torch.from_numpy(records.labels), reduction="sum"
    )
    (gradient,) = torch.autograd.grad(loss, inputs)
    moved = (inputs.detach() + epsilon * gradient.sign()).clamp(oracle.info.low, oracle.info.high)
    labels = oracle.query(moved.numpy()).labels
    return clopper_pearson(int(np.count_nonzero(labels != records.labels)), len(records))
