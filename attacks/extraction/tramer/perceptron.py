"""Multilayer perceptrons as systems of equations, solved by L-BFGS in float64.

A student of exactly the target's width often ends in a local minimum when many of the target's
units are nearly linear. A student with some spare units does not, and says the same as the
target where it is asked; it is tried when the exact one leaves a residual and there are enough
equations to determine it.

Tramèr et al. 2016, section 4.1 and table 4 (one hidden layer of 20 units).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Tensor

from attacks.core.arrays import Floats
from attacks.core.oracle import LOGITS, Answer, OracleInfo
from attacks.errors import DataSplitError
from attacks.extraction.learners import (
    Activation,
    PerceptronLearner,
    count_parameters,
    fit_perceptron,
)
from attacks.extraction.setting import uniform_inputs
from attacks.extraction.tramer.family import Solution, rounded_decimals

EXACT_FIT: Final = 1e-6  # relative residual at which the equations count as solved
EQUATIONS_PER_SPARE_UNKNOWN: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Perceptron:
    """A perceptron with ``hidden`` layers and a known ``activation``.

    ``spare``: share of extra units of the second attempt, 0 to forgo it. ``restarts``: how many
    times each width is started. ``iterations``: of L-BFGS per start.
    """

    hidden: tuple[int, ...] = (20,)
    activation: Activation = field(default=torch.tanh)
    spare: float = 0.5
    restarts: int = 1
    iterations: int = 2000

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1 or self.spare < 0 or self.restarts < 1:
            raise DataSplitError(
                f"a perceptron needs hidden layers, spare ≥ 0 and one start, got {self.hidden}, "
                f"{self.spare}, {self.restarts}"
            )

    @property
    def learner(self) -> PerceptronLearner:
        return PerceptronLearner(hidden=self.hidden, activation=self.activation)

    def unknowns(self, info: OracleInfo) -> int:
        return count_parameters(info.features, (*self.hidden, _outputs(info)))

    def minimum_queries(self, info: OracleInfo) -> int:
        """One equation for each logit, or for each free probability."""
        equations = info.classes if LOGITS in info.answers else info.classes - 1
        return math.ceil(self.unknowns(info) / equations)

    def sweep(self, info: OracleInfo, queries: int) -> tuple[int, ...]:
        return ()

    def records(self, info: OracleInfo, count: int, rng: np.random.Generator) -> Floats:
        return uniform_inputs(info, count, rng)

    def solve(
        self, inputs: Floats, answer: Answer, info: OracleInfo, rng: np.random.Generator
    ) -> Solution:
        """The best of all starts by residual; wider students only where they are determined."""
        target = _Target.of(answer)
        outputs = _outputs(info)
        equations = len(inputs) * (info.classes if answer.logits is not None else info.classes - 1)
        wide = tuple(math.ceil(width * (1 + self.spare)) for width in self.hidden)
        widths = [self.hidden]
        needed = EQUATIONS_PER_SPARE_UNKNOWN * count_parameters(info.features, (*wide, outputs))
        if wide != self.hidden and equations >= needed:
            widths.append(wide)
        best, best_loss, best_width = None, math.inf, self.hidden
        for width in (width for width in widths for _ in range(self.restarts)):
            model, loss = fit_perceptron(
                inputs,
                (*width, outputs),
                self.activation,
                target.loss,
                rng,
                box=(info.low, info.high),
                iterations=self.iterations,
                solved=(EXACT_FIT * 1e-3) ** 2,
            )
            if loss < best_loss:
                best, best_loss, best_width = model, loss, width
            if best_loss < EXACT_FIT**2:
                break
        assert best is not None
        notes = list(target.notes)
        if best_width != self.hidden:
            notes.append(f"solved with {best_width} hidden units in place of {self.hidden}")
        return Solution(
            model=best,
            relative_residual=math.sqrt(max(best_loss, 0.0)),
            up_to_constant=answer.logits is None,
            notes=tuple(notes),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Target:
    """What the outputs are compared with, as a loss that is 0 at a perfect fit."""

    loss: Callable[[Tensor], Tensor]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, answer: Answer) -> _Target:
        if answer.logits is not None:
            return cls(loss=_squared(answer.logits))
        probabilities = answer.require_probabilities()
        decimals = rounded_decimals(probabilities)
        if decimals is None and (probabilities > 0).all():
            logarithms = np.log(probabilities)
            return cls(
                loss=_squared(logarithms - logarithms.mean(axis=1, keepdims=True), center=True)
            )
        # Logarithms of rounded probabilities mislead; cross-entropy weighs them by themselves.
        what = (
            "some probabilities are zero"
            if decimals is None
            else (f"the probabilities are rounded to {decimals} decimals")
        )
        return cls(loss=_divergence(probabilities), notes=(f"{what}: the solution is a best fit",))


def _squared(target: Floats, *, center: bool = False) -> Callable[[Tensor], Tensor]:
    """Mean squared error over the variance of the target."""
    wanted = torch.from_numpy(target)
    spread = float(np.mean((target - target.mean(axis=0)) ** 2)) or 1.0

    def loss(outputs: Tensor) -> Tensor:
        seen = outputs - outputs.mean(dim=1, keepdim=True) if center else outputs
        return ((seen - wanted) ** 2).mean() / spread

    return loss


def _divergence(probabilities: Floats) -> Callable[[Tensor], Tensor]:
    """Mean Kullback–Leibler divergence of the outputs' softmax from the answers."""
    wanted = torch.from_numpy(probabilities)
    entropy = float(-torch.special.xlogy(wanted, wanted).sum(dim=1).mean())

    def loss(outputs: Tensor) -> Tensor:
        return -(wanted * torch.log_softmax(outputs, dim=1)).sum(dim=1).mean() - entropy

    return loss


def _outputs(info: OracleInfo) -> int:
    return 1 if info.classes == 2 and LOGITS not in info.answers else info.classes
