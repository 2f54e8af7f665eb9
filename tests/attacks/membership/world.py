"""A small world for membership tests: answers drawn from known distributions, and trained ones."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from attacks.core.oracle import LABELS, LOGITS, Answer, MeteredOracle, OracleInfo
from attacks.core.records import Records
from attacks.membership.setting import MembershipData, ShadowAnswers
from attacks.oracles.plaintext import TorchOracle
from attacks.oracles.recipes import mlp
from attacks.training.stack import (
    Stack,
    TrainingConfig,
    initialised,
    membership_masks,
    train_stack,
)
from he_infer import datasets


class FixedOracle(MeteredOracle):
    """Answers logits from a table, by the record's first feature, which is its index."""

    def __init__(self, logits: NDArray[np.float64], *, answers: frozenset[str] | None = None):
        super().__init__(
            OracleInfo(
                name="fixed",
                kind="plaintext",
                input_shape=(1,),
                classes=logits.shape[1],
                low=0.0,
                high=float(len(logits)),
                answers=frozenset({LOGITS, LABELS}) if answers is None else answers,
            )
        )
        self._logits = logits

    def _answer(self, records: NDArray[np.float64]) -> Answer:
        logits = self._logits[records[:, 0].round().astype(int)]
        if LOGITS not in self.info.answers:
            return Answer(labels=logits.argmax(axis=1).astype(np.int64))
        return Answer.of_logits(logits)


def drawn_world(
    rng: np.random.Generator, *, records: int = 600, models: int = 17, effect: float = 1.0
) -> tuple[FixedOracle, MembershipData]:
    """Two classes; members' confidence is higher by ``effect`` standard deviations, and each
    record has a difficulty of its own, several standard deviations wide."""
    labels = rng.integers(0, 2, records)
    difficulty = rng.normal(0, 3, records)
    masks = membership_masks(models + 1, records, rng)[:models]
    phi = difficulty + rng.normal(0, 1, (models, records)) + effect * masks
    logits = np.zeros((models, records, 2))
    logits[:, np.arange(records), labels] = phi
    pool = Records(
        inputs=np.arange(records, dtype=np.float64)[:, None], labels=labels.astype(np.int64)
    )
    outside = rng.integers(0, 2, 200).astype(np.int64)
    population = Records(inputs=np.arange(200, dtype=np.float64)[:, None], labels=outside)
    population_logits = rng.normal(0, 3, (models - 1, 200, 2))
    data = MembershipData(
        pool=pool,
        is_member=masks[0],
        shadows=ShadowAnswers(logits=logits[1:], is_member=masks[1:]),
        population=population,
        population_logits=population_logits,
    )
    return FixedOracle(logits[0]), data


@functools.cache
def trained_world(models: int = 18, records: int = 600) -> tuple[Stack, Records, NDArray[np.bool_]]:
    """Overfitted networks on digits whose labels are partly wrong, so that they must memorise."""
    train, _ = datasets.digits()
    rng = np.random.default_rng(11)
    labels = train.labels[:records].copy()
    wrong = rng.random(records) < 0.2
    labels[wrong] = rng.integers(0, 10, int(wrong.sum()))
    pool = Records(inputs=train.flat_inputs()[:records].astype(np.float64), labels=labels)
    masks = membership_masks(models, records, rng)
    seeds = list(range(models))
    config = TrainingConfig(epochs=40, batch=50, rate=0.02)
    fresh = initialised(functools.partial(mlp, 64, 64, 10), seeds)
    return train_stack(fresh, pool, masks, config, seeds=seeds), pool, masks


def trained_target(target: int) -> tuple[TorchOracle, MembershipData]:
    stack, pool, masks = trained_world()
    train, _ = datasets.digits()
    population = Records(
        inputs=train.flat_inputs()[600:800].astype(np.float64), labels=train.labels[600:800]
    )
    others = [index for index in range(len(stack)) if index // 2 != target // 2]
    oracle = TorchOracle(
        stack.module(target), name=f"target {target}", input_shape=(64,), low=0.0, high=1.0
    )
    return oracle, MembershipData(
        pool=pool,
        is_member=masks[target],
        shadows=ShadowAnswers(logits=stack.logits(pool.inputs)[others], is_member=masks[others]),
        population=population,
        population_logits=stack.logits(population.inputs)[others],
    )
