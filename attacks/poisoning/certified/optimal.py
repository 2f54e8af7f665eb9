"""An attack that nearly does the worst that filters allow, with a bound on every other attack.

Source: Steinhardt, Koh and Liang 2017. The adversary knows the clean records, the filters and the
learner, and adds records that pass the filters. The certificate that is computed on the way bounds
what any attack of that size could do to the defended learner's clean training loss.

    clean records ──► radii ──► algorithm 1 ──► certified loss ≥ attained loss ◄── train
                                     └───────► poison ────────► filter ─────────────┘
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from attacks.core.intervals import Estimate, exact
from attacks.core.oracle import Spent
from attacks.core.result import AttackResult, Curve
from attacks.core.threat import ThreatModel
from attacks.defences.outliers import check_share
from attacks.errors import DataSplitError
from attacks.poisoning.certified.binary import BinaryData, BinarySet, joined
from attacks.poisoning.certified.certificate import Certificate, DualAveraging, Game, tightened
from attacks.poisoning.certified.feasible import FeasibleSet
from attacks.poisoning.certified.hinge import Fit, HingeLearner
from attacks.poisoning.certified.moving import settled, widened
from attacks.poisoning.setting import PoisonBudget, removal

NAME: Final = "certified-poisoning"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Poisoned:
    """What came of an attack: the ``poison``, the ``certificate``, and what was learned with it."""

    poison: BinarySet
    certificate: Certificate
    feasible: FeasibleSet
    fit: Fit


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedPoisoning:
    """The attack of Steinhardt, Koh and Liang 2017 on a learner behind sphere and slab filters.

    ``budget``: poison records per clean one. ``removed``: the share of each clean class that the
    sphere takes out, and the slab as well, by radii and centroids of the clean records.
    ``filters_clean``: whether the learner loses these clean outliers, as with a real filter. False
    trains on all clean records, as the paper does, where radii bind the adversary only.
    ``clean_centroids``: whether the filters' centroids are those of the clean records. False takes
    those of the poisoned records and keeps the radii (see
    :mod:`attacks.poisoning.certified.moving`). The attack then is what passes in the end, and may
    be smaller than the budget.

    Raises DataSplitError for a budget or a share outside its range. Raises it for moved centroids
    with ``filters_clean`` too, since the adversary would choose which clean records are left.
    """

    budget: PoisonBudget = field(default_factory=lambda: PoisonBudget(fraction=0.03))
    removed: float = 0.3
    filters_clean: bool = False
    clean_centroids: bool = True
    schedule: DualAveraging = field(default_factory=DualAveraging)

    def __post_init__(self) -> None:
        check_share(self.removed)
        if self.filters_clean and not self.clean_centroids:
            raise DataSplitError(
                "with moved centroids the adversary also chooses which clean records are left: "
                "certify without filters_clean"
            )

    def run(self, oracle: HingeLearner, data: BinaryData, rng: np.random.Generator) -> AttackResult:
        """Poison ``oracle``'s training set; nothing is queried. ``artifact`` is a Poisoned.

        Metrics: "test_error" (primary), "clean_loss" of the learner on the clean records it was
        trained on, "total_loss" with the poison's share, "certified_loss", "slack" (certified
        less total), "within_certificate" (1; anything else would be a defect of the certificate),
        and the filter's removals. The baseline is the learner without poison.
        """
        started = time.perf_counter()
        feasible = FeasibleSet.of(data.train, removed=self.removed, domain=data.domain)
        passes = feasible.contains(data.train)
        clean = data.train.select(passes) if self.filters_clean else data.train
        count = self.budget.records(len(data.train))
        game = Game(clean=clean, feasible=feasible, share=count / len(clean), radius=oracle.radius)
        if self.clean_centroids:
            certificate = self.schedule.certify(game)
            poison = certificate.candidate(count)
        else:
            game, certificate, poison = self._against_moved(game, count)
        clean_fit = oracle.fit(clean)
        fit = oracle.fit(joined([clean, poison]))
        certificate = tightened(certificate, game, fit.model)
        found = Poisoned(poison=poison, certificate=certificate, feasible=feasible, fit=fit)
        metrics = _metrics(found, data, clean)
        # All of the poison is made to pass, whichever centroids judge it.
        survives = game.feasible.contains(poison)
        keep = np.concatenate([passes, survives])
        metrics |= removal(keep, np.arange(len(keep)) >= len(passes))
        baseline = {
            "test_error": clean_fit.model.error(data.test),
            "clean_loss": exact(clean_fit.loss, count=len(clean)),
        }
        return AttackResult(
            attack=NAME,
            oracle=oracle.name,
            threat_model=ThreatModel.TRAINING_TIME_ADVERSARY,
            primary="test_error",
            metrics=metrics,
            spent=Spent(),
            seconds=time.perf_counter() - started,
            baseline=baseline,
            curves={"certificate": _curve(certificate)},
            notes=_notes(found, metrics, share=len(poison) / len(clean)),
            artifact=found,
        )

    def _against_moved(self, game: Game, count: int) -> tuple[Game, Certificate, BinarySet]:
        """The wider game, its certificate, and the larger attack that passes moved filters: the
        wider game's own poison, or what the filters with clean centroids would let through."""
        wide = replace(game, feasible=widened(game.feasible, game.clean, count))
        certificate = self.schedule.certify(wide)
        candidates = [certificate, self.schedule.certify(game)]
        settles = [settled(game.feasible, game.clean, each.candidate(count)) for each in candidates]
        poison = max(settles, key=len)
        if not len(poison):
            raise DataSplitError("no poison was found that passes filters with moved centroids")
        return wide, certificate, poison


def _metrics(found: Poisoned, data: BinaryData, clean: BinarySet) -> dict[str, Estimate]:
    model, certified = found.fit.model, found.certificate.bound
    clean_loss = model.hinge(clean)
    share = len(found.poison) / len(clean)
    total = clean_loss + share * model.hinge(found.poison)
    # The learner is only optimal up to its gap, and so may exceed the bound by that.
    within = clean_loss <= certified + found.fit.gap * (1 + share)
    count = len(clean)
    return {
        "test_error": model.error(data.test),
        "clean_loss": exact(clean_loss, count=count),
        "total_loss": exact(total, count=count),
        "certified_loss": exact(certified, count=count),
        "slack": exact(certified - total, count=count),
        "within_certificate": exact(float(within), count=count),
    }


def _curve(certificate: Certificate) -> Curve:
    """The least bound after each round, thinned to what a chart shows."""
    chosen = np.unique(np.geomspace(1, len(certificate.trace), 60).astype(int))
    bounds = tuple(certificate.trace[index - 1] for index in chosen)
    return Curve(
        x=tuple(float(index) for index in chosen),
        y=bounds,
        low=bounds,
        high=bounds,
        x_label="rounds",
        y_label="certified loss",
    )


def _notes(found: Poisoned, metrics: dict[str, Estimate], *, share: float) -> tuple[str, ...]:
    clean, certified = metrics["clean_loss"].value, metrics["certified_loss"].value
    verdict = "at most" if metrics["within_certificate"].value else "ABOVE, which is a defect:"
    notes = [
        f"{len(found.poison)} poison records, {share:.2%} of the clean ones; the defended "
        f"learner's clean loss of {clean:.4f} is {verdict} the certified {certified:.4f}, which "
        f"its loss with the poison's share misses by {metrics['slack'].value:.2g}"
    ]
    if not found.feasible.domain.is_everything:
        notes.append("poison holds only values that the data's domain allows")
    return tuple(notes)
