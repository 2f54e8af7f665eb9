"""How the audit's networks are made: CryptoDL's replacement, and recipes for known data."""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.errors import AuditError
from attacks.training.recipe import Replacement, TwinRecipe
from attacks.training.stack import AfterStep, Stack, TrainingConfig
from he_infer.activations.approx import least_squares
from he_infer.activations.convert import PolynomializeConfig, polynomialize
from he_infer.activations.layer import PolynomialActivation
from he_infer.errors import HEInferError

# A compiled quadratic is shifted by b/2a, and a large shift costs precision: |a| may fall to
# this share of where it started, and |b/2a| rise to so many radii of the interval.
MIN_LEADING: Final = 0.1
MAX_SHIFT: Final = 8.0
MARGIN: Final = 1.1


def replace_activations(model: nn.Module, members: NDArray[np.float32]) -> nn.Module:
    """Every ReLU becomes its least-squares quadratic on the interval that ``members`` span.

    Source: Hesamifard, Takabi, Ghasemi, CryptoDL, arXiv:1711.05189. Raises AuditError if a
    layer cannot be replaced.
    """
    config = PolynomializeConfig(method=least_squares, degree=2, margin=MARGIN)
    try:
        network, _ = polynomialize(model, members, config=config, rng=np.random.default_rng(0))
    except HEInferError as error:
        raise AuditError(f"the activations cannot be replaced: {error}") from error
    return network


def keep_curved(stack: Stack) -> AfterStep:
    """Bounds every quadratic from below in |a|, by where it stands in ``stack``.

    No channel is made more curved than its fit was.
    """
    fits = {name: stack.parameters[name][..., -1].abs() for name in _coefficients(stack)}

    def after_step(parameters: dict[str, Tensor]) -> None:
        for name, fit in fits.items():
            b, a = parameters[name][..., -2], parameters[name][..., -1]
            against_shift = torch.minimum(b.abs() / (2 * MAX_SHIFT), fit)
            floor = torch.maximum(MIN_LEADING * fit, against_shift)
            a.copy_(torch.where(a < 0, -1.0, 1.0) * torch.maximum(a.abs(), floor))

    return after_step


def _coefficients(stack: Stack) -> list[str]:
    return [
        f"{path}.coefficients" if path else "coefficients"
        for path, layer in stack.template.named_modules()
        if isinstance(layer, PolynomialActivation)
    ]


CRYPTODL: Final = Replacement(
    network=replace_activations,
    bounds=keep_curved,
    description=(
        f"least squares, degree 2, margin {MARGIN}, |a| ≥ {MIN_LEADING} of its start, "
        f"|b/2a| ≤ {MAX_SHIFT}"
    ),
)


def mlp(features: int, hidden: int, classes: int) -> nn.Sequential:
    """features → hidden → classes with batch norm before the ReLU; takes any record shape."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(features, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )


STANDARD: Final = ("digits", "mnist", "fashion-mnist")


def standard_recipe(data: str) -> TwinRecipe:
    """The recipe for a data set of the package; AuditError for another name."""
    if data == "digits":
        architecture = functools.partial(mlp, 64, 32, 10)
    elif data in ("mnist", "fashion-mnist"):
        architecture = functools.partial(mlp, 784, 64, 10)
    else:
        raise AuditError(f"no standard recipe for {data!r}: there are {', '.join(STANDARD)}")
    return TwinRecipe(
        name=f"{data} mlp",
        architecture=architecture,
        relu=TrainingConfig(epochs=30, batch=50, rate=0.01),
        polynomial=TrainingConfig(epochs=15, batch=50, rate=0.002, distillation=0.5),
        replacement=CRYPTODL,
    )
