"""The most that poison can cost a defended learner, and the poison that nearly does it.

Steinhardt, Koh and Liang 2017, algorithm 1. For every model θ in the ball

    U(θ) = clean loss(θ) + ε · max over records that the filters let through of loss(θ; record)

is an upper bound on the clean training loss of the learner after *any* attack with a share ε of
records that pass: the learner's total loss is the least in the ball, hence at most θ's, and θ's is
at most U(θ). Dual averaging lowers U:

    θ ──► the worst record for θ ──► U(θ), kept if it is the least ──► its subgradient ──► next θ
                  │
                  └──► the records of all rounds are the attack

As rounds pass, the learner can hardly do better against that attack than U says, so bound and
attack meet. Nothing is assumed about the attack except that filters fitted on clean records
judge it; which clean records the learner is trained on, the caller decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from attacks.errors import DataSplitError
from attacks.poisoning.binary import BinarySet, LinearModel, compact
from attacks.poisoning.feasible import FeasibleSet, Worst

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Certificate:
    """No attack with a share of poison makes the learner's clean loss larger than ``bound``.

    ``bound``: ``clean_loss`` + share · ``poison_loss``, of ``model``. ``records``: each round's
    worst record, the candidate attack. ``trace``: the least bound after each round.
    """

    bound: float
    clean_loss: float
    poison_loss: float
    model: LinearModel
    records: BinarySet
    trace: tuple[float, ...]

    def candidate(self, count: int, rng: np.random.Generator) -> BinarySet:
        """``count`` records of the last half of the rounds, all of them equally often at most."""
        late = np.arange(len(self.records) // 2, len(self.records))
        repeated = np.tile(late, count // len(late))
        rest = rng.permutation(late)[: count - len(repeated)]
        return self.records.select(np.sort(np.concatenate([repeated, rest])))


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
        """U of a model: its clean loss, the bound on its loss on a poison record, and the record.

        Raises DataSplitError for a model outside the ball, which the bound says nothing about.
        """
        if model.norm > self.radius * (1 + 1e-6):
            raise DataSplitError(
                f"a model of norm {model.norm:.6g} lies outside the ball of radius "
                f"{self.radius:.6g}"
            )
        worst = self.feasible.worst(model)
        return model.hinge(self.clean), worst.bound, worst


@dataclass(frozen=True, slots=True, kw_only=True)
class DualAveraging:
    """Algorithm 1: ``rounds`` of steps, of length ``step`` (η) until the ball shortens them.

    Raises DataSplitError unless there are two rounds and a positive step.
    """

    rounds: int = 400
    step: float = 0.1

    def __post_init__(self) -> None:
        if self.rounds < 2 or not self.step > 0:
            raise DataSplitError(
                f"a certificate takes at least two rounds and a positive step, got {self.rounds} "
                f"and {self.step}"
            )

    def certify(self, game: Game) -> Certificate:
        """The least bound of all rounds and of the mean model of the last half."""
        clean = replace(game.clean, inputs=compact(game.clean.inputs))
        game = replace(game, clean=clean)
        transposed = clean.inputs.T
        downhill = np.zeros(clean.features + 1)
        late = np.zeros_like(downhill)
        scale = 1.0 / self.step
        found: list[Worst] = []
        best: tuple[float, float, float, LinearModel] | None = None
        trace: list[float] = []
        parameters = np.zeros_like(downhill)
        for count in range(self.rounds + 1):
            # One evaluation more than there are rounds: of the mean of the last half's models.
            model = LinearModel.of(parameters if count < self.rounds else late / self._half)
            clean_loss, poison_loss, worst = game.bound(model)
            total = clean_loss + game.share * poison_loss
            if best is None or total < best[0]:
                best = (total, clean_loss, poison_loss, model)
            trace.append(best[0])
            if count == self.rounds:
                break
            found.append(worst)
            if count >= self.rounds - self._half:
                late += parameters
            wrong = clean.signs * (clean.signs * model.scores(clean.inputs) < 1) / len(clean)
            downhill += np.append(transposed @ wrong, wrong.sum())
            if worst.loss > 0:
                downhill += game.share * worst.sign * np.append(worst.record, 1.0)
            scale = max(scale, float(np.linalg.norm(downhill)) / game.radius)
            parameters = downhill / scale
        assert best is not None  # two rounds at least
        return Certificate(
            bound=best[0],
            clean_loss=best[1],
            poison_loss=best[2],
            model=best[3],
            records=_records(found, as_sparse=game.feasible.domain.is_sparse),
            trace=tuple(trace),
        )

    @property
    def _half(self) -> int:
        return self.rounds - self.rounds // 2


def tightened(certificate: Certificate, game: Game, model: LinearModel) -> Certificate:
    """The same certificate with the bound that ``model`` gives, if that is the smaller one.

    A learner's own model after the attack is the other side's answer, and may lie closer to the
    saddle point than any round's.
    """
    clean_loss, poison_loss, _ = game.bound(model)
    total = clean_loss + game.share * poison_loss
    if total >= certificate.bound:
        return certificate
    return replace(
        certificate, bound=total, clean_loss=clean_loss, poison_loss=poison_loss, model=model
    )


def _records(found: list[Worst], *, as_sparse: bool) -> BinarySet:
    rows = [sparse.csr_array(each.record[None]) if as_sparse else each.record for each in found]
    inputs = sparse.csr_array(sparse.vstack(rows, format="csr")) if as_sparse else np.stack(rows)
    return BinarySet(inputs=inputs, signs=np.array([each.sign for each in found]))
