"""The real bench: trains targets and shadows, and opens each target in its four forms.

M + K models, memberships in opposite pairs over one pool. A target's shadows are all models but
itself and its opposite: then every record is a member of exactly half of them, whatever the
truth, and no shadow tells it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attacks.audit.bench.data import Split
from attacks.audit.bench.models import Subject
from attacks.audit.config import AuditConfig
from attacks.audit.sections.accuracy import ACCURACY, AccuracyData
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

# Labelled records that the attacker has to start from; the rest of the population is unlabelled.
SEEDS: Final = 100
CALIBRATION: Final = 512
# Of the interval of inputs: where networks without a defence fall to gradients, and not to noise.
EPSILON_SHARE: Final = 0.1
# Small chunks lose little to an interruption; large ones train faster.
CHUNK: Final = 8


class TrainedBench:
    """All targets of one audit; ``masks`` (models, pool) says who was trained on what."""

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
        # (models, pool, classes), of both kinds of network: targets' columns double as checks.
        self._answers = {
            RELU: self.trained.relu.logits(self._split.pool.inputs),
            POLYNOMIAL: self.trained.polynomial.logits(self._split.pool.inputs),
        }
        self._population = {
            RELU: self.trained.relu.logits(self._split.population.inputs),
            POLYNOMIAL: self.trained.polynomial.logits(self._split.population.inputs),
        }

    @property
    def twins(self) -> Sequence[str]:
        return TWINS

    @property
    def targets(self) -> Sequence[int]:
        """Model numbers: one of each pair first, so that targets are independent while they can."""
        return chosen_targets(self._config.targets, self._config.models)

    def packed(self, records: int) -> PackedBench:
        """The same targets, served in requests of about so many records."""
        return PackedBench(self, records)

    @contextmanager
    def open(self, target: int, *, packed_for: int = 0) -> Iterator[TrainedTarget]:
        """``packed_for``: records that a request carries; 0 takes the audit's own number."""
        sample = self._split.pool.inputs[self.masks[target]][:CALIBRATION]
        with Twins(
            relu=self.trained.relu.module(target),
            polynomial=self.trained.polynomial.module(target),
            sample=sample,
            records=packed_for or self._config.packed_for,
            low=self._split.low,
            high=self._split.high,
            seed=self._config.seed + target,
        ) as twins:
            yield TrainedTarget(
                twins,
                self._split,
                self.masks,
                self._answers,
                self._population,
                target=target,
                config=self._config,
            )

    def plan(self) -> PlanFacts:
        """Of the first target; the others differ in weights only."""
        with self.open(self.targets[0]) as target:
            return target.twins.facts()


class PackedBench:
    """A bench whose services carry fewer records a request: quicker for attacks that ask a few
    records at a time."""

    def __init__(self, bench: TrainedBench, records: int) -> None:
        self._bench, self._records = bench, records

    @property
    def twins(self) -> Sequence[str]:
        return self._bench.twins

    @property
    def targets(self) -> Sequence[int]:
        return self._bench.targets

    @contextmanager
    def open(self, target: int) -> Iterator[TrainedTarget]:
        with self._bench.open(target, packed_for=self._records) as opened:
            yield opened


class TrainedTarget:
    """One target: fresh oracles, and the data each family of attacks is given."""

    def __init__(
        self,
        twins: Twins,
        split: Split,
        masks: NDArray[np.bool_],
        answers: dict[str, NDArray[np.float64]],
        population: dict[str, NDArray[np.float64]],
        *,
        target: int,
        config: AuditConfig,
    ) -> None:
        self.twins = twins
        self._split = split
        self._masks = masks
        self._answers = answers
        self._population = population
        self._target = target
        self._config = config
        self._extraction: dict[str, ExtractionData] = {}

    def oracle(self, twin: str) -> Oracle:
        return self.twins.oracle(twin)

    def allowance(self, twin: str, budget: int) -> Allowance:
        return Allowance(
            budget=budget,
            info=self.twins.oracle(twin).info,
            candidates=len(self._split.pool),
            population=len(self._split.population),
            moved=min(self._config.evasion_records, len(self._split.test)),
        )

    def data(self, twin: str, family: str) -> Any:
        network = RELU if twin == RELU else POLYNOMIAL
        if family == ACCURACY:
            return AccuracyData(
                test=self._split.test, pool=self._split.pool, is_member=self._masks[self._target]
            )
        if family == EVASION:
            return self._evading(network)
        return self._stealing(network) if family == EXTRACTION else self._guessing(network)

    def _evading(self, network: str) -> EvasionData:
        """The first test records, moved by the audit's epsilon; the services' network is the
        polynomial one, which who holds the weights holds in the clear."""
        return EvasionData(
            records=self._split.test.select(slice(0, self._config.evasion_records)),
            low=self._split.low,
            high=self._split.high,
            epsilon=epsilon_for(self._config, self._split),
            model=self.twins.network(network),
            stealing=self._stealing(network),
        )

    def _guessing(self, network: str) -> MembershipData:
        shadows = shadows_of(self._target, len(self._masks))
        return MembershipData(
            pool=self._split.pool,
            is_member=self._masks[self._target],
            shadows=ShadowAnswers(
                logits=self._answers[network][shadows], is_member=self._masks[shadows]
            ),
            population=self._split.population,
            population_logits=self._population[network][shadows],
        )

    def _stealing(self, network: str) -> ExtractionData:
        """Judged against the network in the clear: what the owner wants to keep."""
        if network not in self._extraction:
            self._extraction[network] = stealing_data(
                self.twins.oracle(network), self._split, seed=self._config.seed
            )
        return self._extraction[network]


def epsilon_for(config: AuditConfig, split: Split) -> float:
    """How far evasion moves a value; DataSplitError if that is further than the inputs span."""
    span = split.high - split.low
    if config.epsilon > span:
        raise DataSplitError(
            f"an epsilon of {config.epsilon:g} moves values of {split.name} further than the "
            f"{span:g} that they span: give a smaller one, or 0 for {EPSILON_SHARE * span:g}"
        )
    return config.epsilon or EPSILON_SHARE * span


def stealing_data(reference: Oracle, split: Split, *, seed: int) -> ExtractionData:
    """What an attacker starts from, and the evaluator's answers, asked once."""
    seeds = min(SEEDS, len(split.population))
    empty = ExtractionData(
        seeds=split.population.select(slice(0, seeds)),
        pool=split.population.inputs,
        test=split.test,
        reference=reference,
    )
    answers = ReferenceAnswers.of(empty, np.random.default_rng([seed, 2]))
    return ExtractionData(
        seeds=empty.seeds,
        pool=empty.pool,
        test=empty.test,
        reference=reference,
        answers=answers,
    )


def chosen_targets(targets: int, models: int) -> tuple[int, ...]:
    """The first of every pair, then the second ones: opposite memberships come last."""
    order = [*range(0, models, 2), *range(1, models, 2)]
    return tuple(order[:targets])


def shadows_of(target: int, models: int) -> NDArray[np.int64]:
    """All models but the target and its opposite."""
    others = [index for index in range(models) if index // 2 != target // 2]
    return np.array(others, dtype=np.int64)
