"""Remedies: what an owner could do, tried on the audited model with the same targets and seeds.

    "none" ──────────────┐
    serving defences ────┤   each is a twin of its own:      trials ──► sections/advice.py
    training defences ───┤   the polynomial network, with     (attack, option, target)
    a smaller budget ────┘   the defence around or within it

A serving defence is wrapped around the network in the clear. Its noise and scales are drawn as a
plan with the same options draws them. The adversary knows the defence: it may choose among attacks
that were made for it, and its shadow models answer through it or were trained with it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attacks.audit.bench.accuracy import ACCURACY, ENTRY
from attacks.audit.bench.state import TrialName
from attacks.audit.bench.trained import TrainedBench, epsilon_for
from attacks.audit.bench.trial import Trial
from attacks.audit.bench.trials import Bench, Target
from attacks.audit.document.records import REFUSED
from attacks.audit.section import UNLIMITED, AuditSetting
from attacks.catalogue import ATTACKS
from attacks.core.entry import EVASION, EXTRACTION, MEMBERSHIP, Allowance
from attacks.core.oracle import Answer, MeteredOracle, Oracle
from attacks.defences.adversarial_training import ProjectedGradient, adversarial_training
from attacks.defences.serving import SPREAD, ServingDefence, calibrated_noise, serving_defences
from attacks.errors import AbilityError, ShadowError
from attacks.membership.setting import MembershipData, ShadowAnswers
from attacks.oracles.twins import POLYNOMIAL
from attacks.training.variants import TRAINING_DEFENCES, TrainingDefence

NONE: Final = "none"
# The attacks of each family that an adversary chooses from; the best of them counts. Exact
# extractions take longest, so each option gets only the one that was made for it.
TRIED: Final[Mapping[str, tuple[str, ...]]] = {
    EXTRACTION: ("quadratic-extraction", "ratio-extraction", "network-matching", "knockoff"),
    MEMBERSHIP: ("lira-fixed", "lira-correlation"),
    EVASION: ("transfer",),
}
EXACT: Final = frozenset({"quadratic-extraction", "ratio-extraction", "network-matching"})
# For attacks that take minutes; what takes seconds is tried on all targets.
MOST_TARGETS: Final = 2
SMALLER: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One remedy, and how it is tried.

    ``cost``: what it takes besides accuracy, in words. ``budget``: records that an attack may ask
    of a target. ``bench``: makes a bench of some targets under the remedy. It is None for a remedy
    that cannot be tried here, and ``reason`` says why. ``exact``: the exact extraction that was
    made for it. ``skipped``: families that it cannot change.
    """

    name: str
    title: str
    cost: str
    budget: int
    bench: Callable[[Sequence[int]], Bench] | None
    reason: str = ""
    exact: str = "quadratic-extraction"
    skipped: tuple[str, ...] = ()

    @property
    def attacks(self) -> tuple[str, ...]:
        """Names in the catalogue of what is tried."""
        return tuple(
            name
            for family, names in TRIED.items()
            if family not in self.skipped
            for name in names
            if name not in EXACT or name == self.exact
        )


def options_of(setting: AuditSetting) -> Iterator[Option]:
    """All options, "none" first; training defences train their models when they are reached."""
    config = setting.config

    def around(name: str, defence: ServingDefence | None) -> Callable[[Sequence[int]], Bench]:
        return functools.partial(DefendedBench, setting.bench, name, defence, config.seed)

    yield Option(
        name=NONE, title="As it is", cost="", budget=config.budget, bench=around(NONE, None)
    )
    smaller = max(1, config.budget // SMALLER)
    yield Option(
        name="budget",
        title=f"A budget of {smaller:,} records a client",
        cost="clients who need more must ask for it",
        budget=smaller,
        bench=around("budget", None),
        # Each record that is asked tells as much as before.
        skipped=(MEMBERSHIP,),
    )
    for defence in serving_defences(noise_std=_noise(setting)).values():
        name = defence.name.replace("+", "-and-")
        yield Option(
            name=name,
            title=defence.title,
            cost=defence.cost,
            budget=config.budget,
            bench=around(name, defence),
            exact=_made_for(defence),
        )
    hardened = TrainingDefence(
        name="adversarial-training",
        title="adversarial training, PGD inside the training loop",
        apply=functools.partial(
            adversarial_training,
            against=ProjectedGradient(epsilon=epsilon_for(config, setting.subject.split)),
        ),
    )
    for training in (*TRAINING_DEFENCES, hardened):
        yield _retrained(training, setting)


def measure(
    options: Sequence[Option], setting: AuditSetting, targets: Sequence[int]
) -> dict[TrialName, Trial]:
    """Accuracy and every attack of TRIED under every option; refused for an option that cannot be.

    ``targets``: of the options' benches; attacks of minutes take the first MOST_TARGETS of them.
    """
    trials: dict[TrialName, Trial] = {}
    for option in options:
        quick = [name for name in option.attacks if ATTACKS[name].family == MEMBERSHIP]
        slow = [name for name in option.attacks if name not in quick]
        for names, chosen in (((ACCURACY, *quick), targets), (slow, targets[:MOST_TARGETS])):
            if option.bench is None:
                trials |= {
                    TrialName(twin=option.name, attack=name, target=target): Trial(
                        status=REFUSED, reason=option.reason
                    )
                    for target in chosen
                    for name in names
                }
                continue
            trials |= setting.runner.run(
                option.bench(chosen),
                {name: ENTRY if name == ACCURACY else ATTACKS[name] for name in names},
                budgets={**dict.fromkeys(names, option.budget), ACCURACY: UNLIMITED},
                about=f", {option.title[0].lower()}{option.title[1:]}",
            )
    return trials


@dataclass(frozen=True)
class DefendedBench:
    """The polynomial twins of some of a bench's targets, a serving defence around each."""

    bench: TrainedBench
    name: str
    defence: ServingDefence | None
    seed: int
    targets: Sequence[int]

    @property
    def twins(self) -> Sequence[str]:
        return (self.name,)

    @contextmanager
    def open(self, target: int) -> Iterator[Target]:
        with self.bench.open(target) as opened:
            rng = np.random.default_rng([self.seed, 7, target])
            yield DefendedTarget(opened, self.defence, rng)


@dataclass(frozen=True, slots=True)
class DefendedTarget:
    """``target``'s polynomial network, answering through a defence; so do its shadows."""

    target: Target
    defence: ServingDefence | None
    rng: np.random.Generator

    def oracle(self, twin: str) -> Oracle:
        del twin
        plain = self.target.oracle(POLYNOMIAL)
        return plain if self.defence is None else self.defence.wrap(plain, self.rng)

    def allowance(self, twin: str, budget: int) -> Allowance:
        del twin
        return self.target.allowance(POLYNOMIAL, budget)

    def data(self, twin: str, family: str) -> Any:
        del twin
        found = self.target.data(POLYNOMIAL, family)
        if self.defence is None or not isinstance(found, MembershipData):
            return found
        shadows = ShadowAnswers(
            logits=self._answered(found.shadows.logits), is_member=found.shadows.is_member
        )
        return dataclasses.replace(
            found, shadows=shadows, population_logits=self._answered(found.population_logits)
        )

    def _answered(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """(models, records, classes) as the defence would answer them."""
        assert self.defence is not None
        rows = logits.reshape(-1, logits.shape[-1])
        if not len(rows):
            return logits
        known = _Known(rows, self.target.oracle(POLYNOMIAL))
        numbers = np.arange(len(rows), dtype=np.float64)[:, None]
        answer = self.defence.wrap(known, self.rng).query(numbers)
        return answer.require_logits().reshape(logits.shape)


class _Known(MeteredOracle):
    """Answers the record (k,) with row k of logits (rows, classes)."""

    def __init__(self, rows: NDArray[np.float64], like: Oracle) -> None:
        info = dataclasses.replace(like.info, input_shape=(1,), low=0.0, high=float(len(rows)))
        super().__init__(dataclasses.replace(info, batch=None))
        self._rows = rows

    def _answer(self, records: NDArray[np.float64]) -> Answer:
        return Answer.of_logits(self._rows[records[:, 0].astype(np.int64)])


def _made_for(defence: ServingDefence) -> str:
    """The exact extraction that copes with the defence: matching averages noise best."""
    return "ratio-extraction" if defence.keeps_labels else "network-matching"


def _noise(setting: AuditSetting) -> float:
    """The noise that costs one point of the first target's accuracy, after scaling as well."""
    bench, test = setting.bench, setting.subject.split.test
    with bench.open(bench.targets[0]) as target:
        logits = target.oracle(POLYNOMIAL).query(test.inputs).require_logits()
    rng = np.random.default_rng([setting.config.seed, 8])
    return calibrated_noise(logits, test.labels, rng, spread=SPREAD)


def _retrained(defence: TrainingDefence, setting: AuditSetting) -> Option:
    """Targets and shadows trained anew with the defence, from the same members and seeds."""
    subject, config = setting.subject, setting.config
    cost = "training anew"
    if defence.private is not None:
        cost = "training anew, each model many times as long; no batch norm"
    elif defence.name == "adversarial-training":
        cost = "training anew, each step several times as long"
    bench, reason = None, ""
    try:
        retrained = dataclasses.replace(subject, recipe=defence.apply(subject.recipe))
        trained = TrainedBench(retrained, config, progress=setting.runner.progress)
        bench = functools.partial(DefendedBench, trained, defence.name, None, config.seed)
    except (AbilityError, ShadowError) as error:
        reason = str(error)
    return Option(
        name=defence.name,
        title=f"{defence.title[0].upper()}{defence.title[1:]}",
        cost=cost,
        budget=config.budget,
        bench=bench,
        reason=reason,
    )
