"""Models that an adversary fits to labels, and the optimiser behind them.

Everything is float64 and deterministic given the generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from attacks.core.arrays import Floats
from attacks.core.records import Records
from attacks.extraction.setting import StolenModel

Activation = Callable[[Tensor], Tensor]

_CORRECTIONS: Final = 30
_PATIENCE: Final = 100  # iterations over which a fit that falls less than this has stalled
_PROGRESS: Final = 0.99
_FORWARD_RECORDS: Final = 4096


class Learner(Protocol):
    """Turns labelled records into a model."""

    def fit(self, records: Records, classes: int, rng: np.random.Generator) -> StolenModel:
        """A model for ``classes`` classes, also from no records at all."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PerceptronModel:
    """``weights[i]`` (in, out), ``biases[i]`` (out,); one output z stands for logits (0, z)."""

    weights: tuple[Floats, ...]
    biases: tuple[Floats, ...]
    activation: Activation

    def scores(self, inputs: Floats) -> Floats:
        flat = torch.from_numpy(inputs.reshape(len(inputs), -1))
        with torch.inference_mode():
            parts = [self.outputs(part) for part in torch.split(flat, _FORWARD_RECORDS)]
        result: Floats = torch.cat(parts).numpy()
        return result

    def outputs(self, flat: Tensor) -> Tensor:
        """Scores of flattened records, (B, d) → (B, classes), with a gradient."""
        layers = zip(self.weights, self.biases, strict=True)
        tensors = [torch.from_numpy(array) for layer in layers for array in layer]
        return _forward(tensors, flat, self.activation)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConstantModel:
    """Always the same class: what is left to guess without records."""

    label: int
    classes: int

    def scores(self, inputs: Floats) -> Floats:
        result = np.zeros((len(inputs), self.classes))
        result[:, self.label] = 1.0
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class PerceptronLearner:
    """Fits a perceptron with ``hidden`` layers (none: logistic regression) to labels.

    ``weight_decay``: of the mean cross-entropy. Deterministic given the generator.
    """

    hidden: tuple[int, ...] = ()
    activation: Activation = torch.tanh
    weight_decay: float = 1e-4
    iterations: int = 300

    def fit(self, records: Records, classes: int, rng: np.random.Generator) -> StolenModel:
        """A model for ``classes`` classes; a constant one if there are no records."""
        if len(records) == 0:
            return ConstantModel(label=0, classes=classes)
        labels = torch.from_numpy(records.labels)

        def loss(outputs: Tensor) -> Tensor:
            return torch.nn.functional.cross_entropy(outputs, labels)

        low, high = float(records.inputs.min()), float(records.inputs.max())
        return fit_perceptron(
            records.inputs,
            (*self.hidden, classes),
            self.activation,
            loss,
            rng,
            box=(low, high if high > low else low + 1.0),
            iterations=self.iterations,
            weight_decay=self.weight_decay,
        )[0]


def fit_perceptron(
    inputs: Floats,
    sizes: tuple[int, ...],
    activation: Activation,
    loss: Callable[[Tensor], Tensor],
    rng: np.random.Generator,
    *,
    box: tuple[float, float],
    iterations: int,
    weight_decay: float = 0.0,
    solved: float = 0.0,
) -> tuple[PerceptronModel, float]:
    """Minimise ``loss(outputs)`` from one random start; stop below ``solved``, or stalled."""
    center, half = (box[0] + box[1]) / 2, (box[1] - box[0]) / 2
    flat = torch.from_numpy((inputs.reshape(len(inputs), -1) - center) / half)
    shapes: list[tuple[int, ...]] = []
    for width_in, width_out in zip((flat.shape[1], *sizes), sizes, strict=False):
        shapes += [(width_in, width_out), (width_out,)]
    start = np.concatenate([_start(shape, rng) for shape in shapes])

    def objective(theta: Tensor) -> Tensor:
        total = loss(_forward(_split(theta, shapes), flat, activation))
        return total + 0.5 * weight_decay * (theta**2).sum() if weight_decay else total

    losses: list[float] = []

    def stop(intermediate_result: Any) -> None:
        losses.append(float(intermediate_result.fun))
        stalls = len(losses) > _PATIENCE and losses[-1] > _PROGRESS * losses[-1 - _PATIENCE]
        if losses[-1] < solved or stalls:
            raise StopIteration

    tolerance = 1e-12 if weight_decay else 0.0
    best, least = minimise(objective, start, iterations, ftol=tolerance, gtol=1e-12, stop=stop)
    found = [part.numpy() for part in _split(torch.from_numpy(best), shapes)]
    # The scaling of the inputs goes into the first layer.
    first = found[0] / half
    weights = (first, *found[2::2])
    biases = (found[1] - center * first.sum(axis=0), *found[3::2])
    model = PerceptronModel(weights=weights, biases=biases, activation=activation)
    return model, least


def minimise(
    objective: Callable[[Tensor], Tensor],
    start: Floats,
    iterations: int,
    *,
    ftol: float,
    gtol: float,
    stop: Callable[[Any], None] | None = None,
) -> tuple[Floats, float]:
    """Parameters (n,) that L-BFGS finds from ``start``, and the objective there.

    ``stop``: called after each iteration, and may raise StopIteration.
    """

    def value(parameters: Floats) -> tuple[float, Floats]:
        theta = torch.from_numpy(parameters).requires_grad_()
        total = objective(theta)
        (gradient,) = torch.autograd.grad(total, theta)
        return total.item(), gradient.numpy()

    result = minimize(
        value,
        start,
        jac=True,
        method="L-BFGS-B",
        callback=stop,
        options={
            "maxiter": iterations,
            "maxfun": 2 * iterations,
            "maxcor": _CORRECTIONS,
            "ftol": ftol,
            "gtol": gtol,
        },
    )
    return np.asarray(result.x), float(result.fun)


def _start(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    scale = 1 / math.sqrt(shape[0]) if len(shape) == 2 else 0.1
    return scale * rng.standard_normal(shape).ravel()


def _split(theta: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    parts = torch.split(theta, [math.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _forward(layers: Sequence[Tensor], inputs: Tensor, activation: Activation) -> Tensor:
    hidden = inputs
    for at in range(0, len(layers), 2):
        hidden = torch.addmm(layers[at + 1], hidden, layers[at])
        if at + 2 < len(layers):
            hidden = activation(hidden)
    if hidden.shape[1] == 1:
        hidden = torch.cat([torch.zeros_like(hidden), hidden], dim=1)
    return hidden


def count_parameters(features: int, sizes: tuple[int, ...]) -> int:
    """Weights and biases of a perceptron with layers of these sizes."""
    return sum((a + 1) * b for a, b in zip((features, *sizes), sizes, strict=False))
