"""Trains the targets and their shadow models, and opens each target in its four forms.

Models are trained in pairs. The members of one are drawn from the pool at random, and the other
gets the rest. The shadows of a target are all models but itself and its opposite. So every record
is a member of exactly half of the shadows, and their number does not tell the truth.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from attacks.audit.bench.accuracy import ACCURACY, AccuracyData
from attacks.audit.bench.data import Split
from attacks.audit.bench.models import Subject
from attacks.audit.config import AuditConfig
from attacks.core.entry import EVASION, EXTRACTION, Allowance
from attacks.core.oracle import Oracle
from attacks.errors import DataSplitError
from attacks.evasion.setting import EvasionData
from attacks.extraction.setting import ExtractionData, ReferenceAnswers
from attacks.membership.setting import MembershipData, ShadowAnswers
from attacks.oracles.twins import POLYNOMIAL, RELU, TWINS, PlanFacts, Twins
from attacks.progress import Progress
from attacks.training.cache import ShadowCache
from attacks.training.recipe import TrainedTwins
from attacks.training.stack import membership_masks

# Labelled records that the adversary has to start from; the rest of the population is unlabelled.
SEEDS: Final = 100
CALIBRATION: Final = 512
# Of the interval of inputs: where networks without a defence fall to gradients, and not to noise.
EPSILON_SHARE: Final = 0.1
# Small chunks lose little to an interruption; large ones train faster.
CHUNK: Final = 8


class TrainedBench:
    """All targets of one audit; ``masks`` (models, pool) says which model was trained on what."""

    def __init__(
        self, subject: Subject, config: AuditConfig, *, progress: Progress | None = None
    ) -> None:
        """Train what is not in the cache below ``config.out``; ShadowError if it does not learn."""
        self._split = subject.split
        self._config = config
        rng = np.random.default_rng([config.seed, 1])
        self.masks = membership_masks(config.models, len(self._split.pool), rng)
        self.model_seeds = [int(seed) for seed in rng.integers(0, 2**31, config.models)]
        cache = ShadowCache(folder=config.out / "models", chunk=CHUNK, jobs=config.jobs)
        self.trained: TrainedTwins = cache.train(
            subject.recipe,
            self._split.pool,
            self.masks,
            seeds=self.model_seeds,
            progress=progress,
        )
        self._packed_for = config.packed_for
        inputs = (self._split.pool.inputs, self._split.population.inputs)
        networks = {RELU: self.trained.relu, POLYNOMIAL: self.trained.polynomial}
        # (models, records, classes) on pool and population, of both kinds of network.
        self._logits = {n: tuple(net.logits(x) for x in inputs) for n, net in networks.items()}

    @property
    def twins(self) -> Sequence[str]:
        return TWINS

    @property
    def targets(self) -> Sequence[int]:
        """Model numbers: one of each pair first, so that targets are independent while they can."""
        return chosen_targets(self._config.targets, self._config.models)

    def packed(self, records: int) -> TrainedBench:
        """The same targets, whose services carry about so many records a request.

        Fewer are quicker for attacks that ask a few records at a time.
        """
        other = copy.copy(self)
        other._packed_for = records
        return other

    @contextmanager
    def open(self, target: int) -> Iterator[OpenTarget]:
        """One target with its services, which are closed afterwards."""
        with served_twins(
            self._split,
            relu=self.trained.relu.module(target),
            polynomial=self.trained.polynomial.module(target),
            sample=self._split.pool.inputs[self.masks[target]],
            records=self._packed_for,
            seed=self._config.seed + target,
        ) as twins:
            membership = {network: self._membership(target, network) for network in self._logits}
            yield OpenTarget(
                twins=twins, split=self._split, config=self._config, membership=membership
            )

    def _membership(self, target: int, network: str) -> MembershipData:
        shadows = shadows_of(target, len(self.masks))
        pool, population = (logits[shadows] for logits in self._logits[network])
        return MembershipData(
            pool=self._split.pool,
            is_member=self.masks[target],
            shadows=ShadowAnswers(logits=pool, is_member=self.masks[shadows]),
            population=self._split.population,
            population_logits=population,
        )

    def plan(self) -> PlanFacts:
        """Of the first target; the others differ in weights only."""
        with self.open(self.targets[0]) as target:
            return target.twins.facts()


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenTarget:
    """One target while it is attacked: fresh oracles, and the data that each family is given.

    ``membership``: by network; empty if it is not known what the target was trained on.
    """

    twins: Twins
    split: Split
    config: AuditConfig
    membership: Mapping[str, MembershipData]

    def oracle(self, twin: str) -> Oracle:
        return self.twins.oracle(twin)

    def allowance(self, twin: str, budget: int) -> Allowance:
        return Allowance(
            budget=budget,
            info=self.twins.oracle(twin).info,
            candidates=len(self.split.pool),
            population=len(self.split.population),
            moved=min(self.config.evasion_records, len(self.split.test)),
        )

    def data(self, twin: str, family: str) -> Any:
        network = RELU if twin == RELU else POLYNOMIAL
        if family == EXTRACTION:
            return self._extraction[network]
        if family == EVASION:
            return self._evasion(network)
        known = self.membership[network]
        if family == ACCURACY:
            return AccuracyData(test=self.split.test, pool=known.pool, is_member=known.is_member)
        return known

    def _evasion(self, network: str) -> EvasionData:
        """The first test records, to be moved by the audit's epsilon.

        The services compute the polynomial network, and a holder of the weights has it in the
        clear.
        """
        return EvasionData(
            records=self.split.test.select(slice(0, self.config.evasion_records)),
            low=self.split.low,
            high=self.split.high,
            epsilon=epsilon_for(self.config, self.split),
            model=self.twins.network(network),
            stealing=self._extraction[network],
        )

    @functools.cached_property
    def _extraction(self) -> Mapping[str, ExtractionData]:
        """By network, judged against it in the clear: that is what the owner wants to keep."""
        return {
            network: extraction_data(self.twins.oracle(network), self.split, seed=self.config.seed)
            for network in (RELU, POLYNOMIAL)
        }


def served_twins(
    split: Split,
    *,
    relu: nn.Module,
    polynomial: nn.Module,
    sample: NDArray[np.float64],
    records: int,
    seed: int,
) -> Twins:
    """A target in its four forms, calibrated on the first records of ``sample``."""
    return Twins(
        relu=relu,
        polynomial=polynomial,
        sample=sample[:CALIBRATION],
        records=records,
        low=split.low,
        high=split.high,
        seed=seed,
    )


def epsilon_for(config: AuditConfig, split: Split) -> float:
    """How far evasion moves a value; DataSplitError if that is further than the inputs span."""
    span = split.high - split.low
    if config.epsilon > span:
        raise DataSplitError(
            f"an epsilon of {config.epsilon:g} moves values of {split.name} further than the "
            f"{span:g} that they span: give a smaller one, or 0 for {EPSILON_SHARE * span:g}"
        )
    return config.epsilon or EPSILON_SHARE * span


def extraction_data(reference: Oracle, split: Split, *, seed: int) -> ExtractionData:
    """What an adversary starts from, and the evaluator's answers, asked once."""
    data = ExtractionData(
        seeds=split.population.select(slice(0, min(SEEDS, len(split.population)))),
        pool=split.population.inputs,
        test=split.test,
        reference=reference,
    )
    answers = ReferenceAnswers.of(data, np.random.default_rng([seed, 2]))
    return dataclasses.replace(data, answers=answers)


def chosen_targets(targets: int, models: int) -> tuple[int, ...]:
    """The first of every pair, then the second ones: opposite memberships come last."""
    order = [*range(0, models, 2), *range(1, models, 2)]
    return tuple(order[:targets])


def shadows_of(target: int, models: int) -> NDArray[np.int64]:
    """All models but the target and its opposite."""
    others = [index for index in range(models) if index // 2 != target // 2]
    return np.array(others, dtype=np.int64)
