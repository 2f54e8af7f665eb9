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

from attacks.audit.accuracy import ACCURACY, AccuracyData
from attacks.audit.config import AuditConfig
from attacks.audit.data import Split
from attacks.audit.models import Subject
from attacks.catalogue import EXTRACTION, Allowance
from attacks.extraction.setting import ExtractionData
from attacks.membership.setting import MembershipData, ShadowAnswers
from attacks.metrics.fidelity import ReferenceAnswers
from attacks.oracle import Oracle
from attacks.oracles.twins import POLYNOMIAL, RELU, TWINS, PlanFacts, Twins
from attacks.progress import Progress
from attacks.training.cache import ShadowCache
from attacks.training.recipe import TrainedTwins
from attacks.training.stack import membership_masks

# Labelled records that the attacker has to start from; the rest of the population is unlabelled.
SEEDS: Final = 100
CALIBRATION: Final = 512
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

    @contextmanager
    def open(self, target: int) -> Iterator[TrainedTarget]:
        sample = self._split.pool.inputs[self.masks[target]][:CALIBRATION]
        with Twins(
            relu=self.trained.relu.module(target),
            polynomial=self.trained.polynomial.module(target),
            sample=sample,
            records=self._config.packed_for,
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
                seed=self._config.seed,
            )

    def plan(self) -> PlanFacts:
        """Of the first target; the others differ in weights only."""
        with self.open(self.targets[0]) as target:
            return target.twins.facts()


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
        seed: int,
    ) -> None:
        self.twins = twins
        self._split = split
        self._masks = masks
        self._answers = answers
        self._population = population
        self._target = target
        self._seed = seed
        self._extraction: dict[str, ExtractionData] = {}

    def oracle(self, twin: str) -> Oracle:
        return self.twins.oracle(twin)

    def allowance(self, twin: str, budget: int) -> Allowance:
        return Allowance(
            budget=budget,
            info=self.twins.oracle(twin).info,
            candidates=len(self._split.pool),
            population=len(self._split.population),
        )

    def data(self, twin: str, family: str) -> Any:
        network = RELU if twin == RELU else POLYNOMIAL
        if family == ACCURACY:
            return AccuracyData(
                test=self._split.test, pool=self._split.pool, is_member=self._masks[self._target]
            )
        return self._stealing(network) if family == EXTRACTION else self._guessing(network)

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
                self.twins.oracle(network), self._split, seed=self._seed
            )
        return self._extraction[network]


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
