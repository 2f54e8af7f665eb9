"""The learner that is attacked: a linear classifier with the hinge loss, of bounded norm.

    minimise  1/N Σ max(0, 1 − y(⟨w, x⟩ + b))   subject to  ‖(w, b)‖ ≤ radius

    smooth the kink over a width δ ─► L-BFGS at weight decay λ ─► λ so that the norm is the radius
            ▲                                                                  │
            └───────────── δ/4, until the duality gap is small ◄───────────────┘

Steinhardt, Koh and Liang (2017) bound the loss of just this learner. The slopes of the smoothed
loss are a feasible point of the dual problem. So every solution comes with a bound on how far it is
from optimal. Nothing is drawn at random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import optimize

from attacks.core.arrays import Floats
from attacks.errors import AttackError, DataSplitError
from attacks.poisoning.certified.binary import BinarySet, LinearModel, compact, inside

_WIDTHS: Final = tuple(0.25**power for power in range(1, 9))
_NORM_TOLERANCE: Final = 1e-3
_SEARCH_STEPS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """What was learned.

    ``model``: within the ball. ``loss``: its mean hinge loss over what it was trained on.
    ``least``: no model in the ball has a smaller loss. ``decay``: the weight decay that gives this
    norm; 0 where the ball does not bind.
    """

    model: LinearModel
    loss: float
    least: float
    decay: float

    @property
    def gap(self) -> float:
        """How far from optimal the model is at most."""
        return max(0.0, self.loss - self.least)


@dataclass(frozen=True, slots=True, kw_only=True)
class HingeLearner:
    """``radius``: bound on the norm of weights and bias together, ρ in the paper. ``tolerance``:
    the duality gap, in units of the mean loss, at which it stops.

    Raises DataSplitError unless both are positive.
    """

    radius: float
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if not self.radius > 0 or not self.tolerance > 0:
            raise DataSplitError(
                f"a learner needs a positive radius and tolerance, got {self.radius} and "
                f"{self.tolerance}"
            )

    @property
    def name(self) -> str:
        return f"linear, hinge loss, norm ≤ {self.radius:.4g}"

    def fit(self, records: BinarySet) -> Fit:
        """Train; DataSplitError without both classes, AttackError if the gap does not close."""
        if np.unique(records.signs).size < 2:
            raise DataSplitError("a classifier is trained on records of both classes")
        search = _Search(records=records, radius=self.radius)
        best: Fit | None = None
        for width in _WIDTHS:
            found = search.solve(width)
            # The dual bound of any width holds for all, and so does any model's loss.
            if best is not None:
                least = max(best.least, found.least)
                better = found if found.loss <= best.loss else best
                found = Fit(model=better.model, loss=better.loss, least=least, decay=better.decay)
            best = found
            if best.gap <= self.tolerance:
                return best
        raise AttackError(
            f"the learner stopped {0.0 if best is None else best.gap:.3g} from optimal, asked for "
            f"{self.tolerance:g}: scale the inputs, lower the radius or allow a larger gap"
        )


class _Search:
    """Solutions for narrower and narrower kinks, each started from the one before."""

    def __init__(self, *, records: BinarySet, radius: float) -> None:
        self._inputs: Any = compact(records.inputs)
        self._transposed: Any = self._inputs.T
        self._signs = records.signs
        self._radius = radius
        self._parameters = np.zeros(records.features + 1)
        # Near where it ends on images and words alike; what is far too small costs most steps.
        self._decay = 0.1 / radius**2

    def solve(self, width: float) -> Fit:
        """Weight decay such that the norm is the radius, by secants in logarithms."""
        seen: list[tuple[float, float]] = []
        for _ in range(_SEARCH_STEPS):
            self._minimise(width)
            excess = math.log(max(float(np.linalg.norm(self._parameters)), 1e-12) / self._radius)
            # What a wide kink is solved for only starts the next one: no need to be exact there.
            if abs(excess) < max(_NORM_TOLERANCE, 0.05 * width) or (
                excess < 0 and self._decay < 1e-9
            ):
                break
            seen.append((math.log(self._decay), excess))
            slope = -0.5
            if len(seen) > 1 and seen[-1][0] != seen[-2][0]:
                slope = (seen[-1][1] - seen[-2][1]) / (seen[-1][0] - seen[-2][0])
            step = -excess / min(slope, -0.02)
            self._decay *= math.exp(min(3.0, max(-3.0, step)))
        return self._judged(width)

    def _slopes(self, parameters: Floats, width: float) -> tuple[Floats, Floats]:
        """Slacks 1 − y·score, and the slope of the smoothed loss at each, in [0, 1]; (B,)."""
        slacks = 1.0 - self._signs * (self._inputs @ parameters[:-1] + parameters[-1])
        return slacks, np.clip(slacks / width, 0.0, 1.0)

    def _pull(self, slopes: Floats) -> Floats:
        """Mean of slope·y·(x, 1): minus the gradient of the mean loss."""
        weighted = slopes * self._signs / len(slopes)
        return np.append(np.asarray(self._transposed @ weighted), weighted.sum())

    def _minimise(self, width: float) -> None:
        decay = self._decay

        def objective(parameters: Floats) -> tuple[float, Floats]:
            slacks, slopes = self._slopes(parameters, width)
            # slope·(slack − slope·width/2) is the parabola in the kink and the line beyond it.
            loss = float((slopes * (slacks - slopes * width / 2)).mean())
            gradient = decay * parameters - self._pull(slopes)
            return loss + decay / 2 * float(parameters @ parameters), gradient

        found = optimize.minimize(
            objective,
            self._parameters,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 1000, "maxcor": 20, "ftol": 1e-11, "gtol": 1e-8},
        )
        self._parameters = np.asarray(found.x, dtype=np.float64)

    def _judged(self, width: float) -> Fit:
        norm = float(np.linalg.norm(self._parameters))
        nearest = inside(self._parameters, self._radius)
        slacks, slopes = self._slopes(nearest, width)
        least = float(slopes.mean()) - self._radius * float(np.linalg.norm(self._pull(slopes)))
        return Fit(
            model=LinearModel.of(nearest),
            loss=float(np.maximum(slacks, 0.0).mean()),
            least=least,
            decay=self._decay if norm >= self._radius * (1 - 2 * _NORM_TOLERANCE) else 0.0,
        )
