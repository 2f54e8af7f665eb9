"""The most that poison can cost a defended learner, and the poison that nearly does it.

Steinhardt, Koh and Liang 2017, algorithm 1. For every model θ in the ball

    U(θ) = clean loss(θ) + ε · max over records that the filters let through of loss(θ; record)

is an upper bound on the clean training loss of the learner after *any* attack with a share ε of
records that pass. The reason is that the learner's total loss is the least in the ball. So it is at
most that of θ, which is at most U(θ). Dual averaging lowers U:

    θ ──► the worst record for θ ──► U(θ), kept if it is the least ──► its subgradient ──► next θ
                  │
                  └──► the records of the last half of the rounds are the attack

As rounds pass, the learner can hardly do better against that attack than U says, so bound and
attack meet. The only assumption about the attack is that filters fitted on clean records judge it.
The caller decides which clean records the learner is trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import sparse

from attacks.core.arrays import Floats
from attacks.errors import AttackError, DataSplitError
from attacks.poisoning.certified.binary import BinarySet, LinearModel, compact, inside
from attacks.poisoning.certified.feasible import FeasibleSet, Worst


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Certificate:
    """No attack with a share of poison makes the learner's clean loss larger than ``bound``.

    ``bound``: ``clean_loss`` + share · ``poison_loss``, of ``model``. ``records``: the worst
    records of all rounds; ``weights``: how much of the budget the candidate attack spends on
    each, 1 in all. ``trace``: the least bound after each round.
    """

    bound: float
    clean_loss: float
    poison_loss: float
    model: LinearModel
    records: BinarySet
    weights: Floats
    trace: tuple[float, ...]

    def candidate(self, count: int) -> BinarySet:
        """``count`` records by their weights, rounded so that the largest remainders gain."""
        wanted = self.weights * count
        copies = np.floor(wanted).astype(np.int64)
        short = np.argsort(copies - wanted, kind="stable")[: count - int(copies.sum())]
        copies[short] += 1
        return self.records.select(np.repeat(np.arange(len(self.records)), copies))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Game:
    """``clean``: what the learner is trained on beside poison. ``share``: poison records per
    record of ``clean``; ``radius``: of the learner's ball.

    Raises DataSplitError unless both are positive.
    """

    clean: BinarySet
    feasible: FeasibleSet
    share: float
    radius: float

    def __post_init__(self) -> None:
        if not self.share > 0 or not self.radius > 0:
            raise DataSplitError(
                f"a certificate is for a positive share of poison and a positive radius, got "
                f"{self.share} and {self.radius}"
            )

    def bound(self, model: LinearModel) -> tuple[float, float, Worst]:
        """U of a model, its clean loss, and the worst record, with the bound on its loss.

        Raises DataSplitError for a model outside the ball, for which there is no bound.
        """
        if model.norm > self.radius * (1 + 1e-6):
            raise DataSplitError(
                f"a model of norm {model.norm:.6g} lies outside the ball of radius "
                f"{self.radius:.6g}"
            )
        worst, clean_loss = self.feasible.worst(model), model.hinge(self.clean)
        return clean_loss + self.share * worst.bound, clean_loss, worst


@dataclass(frozen=True, slots=True, kw_only=True)
class DualAveraging:
    """Algorithm 1, with the step size of Duchi, Hazan and Singer 2011, one for all features.

    ``rounds``: of steps. ``step``: a factor on the step size, which follows from the subgradients
    seen so far; the paper tunes a first step for each data set instead. Raises DataSplitError
    unless there are two rounds and a positive step.
    """

    rounds: int = 400
    step: float = 1.0

    def __post_init__(self) -> None:
        if self.rounds < 2 or not self.step > 0:
            raise DataSplitError(
                f"a certificate takes at least two rounds and a positive step, got {self.rounds} "
                f"and {self.step}"
            )

    def certify(self, game: Game) -> Certificate:
        """The least bound of all rounds and of the mean model of the last half, whose records
        are the attack."""
        clean = replace(game.clean, inputs=compact(game.clean.inputs))
        transposed = clean.inputs.T
        rounds = _Rounds(game=replace(game, clean=clean))
        downhill = np.zeros(clean.features + 1)
        late = np.zeros_like(downhill)
        squares = 0.0
        parameters = np.zeros_like(downhill)
        half = self.rounds - self.rounds // 2
        for count in range(self.rounds):
            model = LinearModel.of(parameters)
            worst = rounds.play(model)
            if count >= self.rounds - half:
                late += parameters / half
            wrong = clean.signs * (clean.signs * model.scores(clean.inputs) < 1) / len(clean)
            descent = np.append(transposed @ wrong, wrong.sum())
            if worst.loss > 0:
                descent += game.share * worst.sign * np.append(worst.record, 1.0)
            downhill += descent
            squares += float(descent @ descent)
            # Both players may be at rest: nothing is wrong, and poison costs nothing.
            reach = self.step * game.radius / max(squares**0.5, 1e-300)
            parameters = inside(reach * downhill, game.radius)
        rounds.judge(LinearModel.of(late))
        weights = np.zeros(self.rounds)
        weights[-half:] = 1.0 / half
        return rounds.certificate(weights)


@dataclass(slots=True, kw_only=True)
class _Rounds:
    """The rounds so far: their worst records, and the model of the least bound."""

    game: Game
    worst: list[Worst] = field(default_factory=list)
    trace: list[float] = field(default_factory=list)
    best: tuple[float, float, float, LinearModel] | None = None

    def judge(self, model: LinearModel) -> Worst:
        """Keep U of ``model`` if it is the least so far. Gives the model's worst record, which
        does not join the attack."""
        bound, clean_loss, worst = self.game.bound(model)
        if self.best is None or bound < self.best[0]:
            self.best = (bound, clean_loss, worst.bound, model)
        self.trace.append(self.best[0])
        return worst

    def play(self, model: LinearModel) -> Worst:
        """The same, but the worst record joins the attack."""
        worst = self.judge(model)
        self.worst.append(worst)
        return worst

    def certificate(self, weights: Floats) -> Certificate:
        """``weights``: of the worst records, one for each."""
        if self.best is None or len(weights) != len(self.worst):
            raise AttackError(
                f"{len(weights)} weights for {len(self.worst)} records: an attack needs as many"
            )
        bound, clean_loss, poison_loss, model = self.best
        rows = [each.record for each in self.worst]
        inputs: Any = np.stack(rows)
        if self.game.feasible.domain.is_sparse:
            inputs = sparse.csr_array(inputs)
        return Certificate(
            bound=bound,
            clean_loss=clean_loss,
            poison_loss=poison_loss,
            model=model,
            records=BinarySet(inputs=inputs, signs=np.array([each.sign for each in self.worst])),
            weights=weights,
            trace=tuple(self.trace),
        )


def tightened(certificate: Certificate, game: Game, model: LinearModel) -> Certificate:
    """The same certificate with the bound that ``model`` gives, if that is the smaller one.

    The model that a learner has after the attack is such a model. It may lie closer to the saddle
    point than that of any round.
    """
    bound, clean_loss, worst = game.bound(model)
    if bound >= certificate.bound:
        return certificate
    return replace(
        certificate, bound=bound, clean_loss=clean_loss, poison_loss=worst.bound, model=model
    )
