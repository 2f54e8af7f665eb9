"""What a defence costs an adversary: every attack with growing budgets until the labels agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from attacks.core.result import AttackResult
from attacks.defences.serving import ServingDefence
from attacks.errors import BudgetError
from attacks.extraction.exact.concealed import Concealment
from attacks.extraction.exact.matching import NetworkMatching
from attacks.extraction.exact.quadratic import QuadraticExtraction
from attacks.extraction.exact.ratios import RatioExtraction
from attacks.extraction.learners import PerceptronLearner
from attacks.extraction.setting import ExtractionData
from attacks.extraction.tramer.retraining import AdaptiveRetraining
from benchmarks.defences.setting import NONE, oracle_of
from benchmarks.rows import Json

GOAL: Final = 0.99
LADDER: Final = (500, 600, 700, 1000, 1400, 2000, 2700, 4000, 5600, 8000, 11000, 16000, 32000)
MATCHING_MOST: Final = 8000  # beyond, least squares is what fits a minute
_JUMP: Final = 2.0  # a failure's excess says how many times more records to try next, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Adversary:
    """An attack for a number of records.

    ``knows``: whether it was made for the defence. ``most``: records that it can take.
    """

    name: str
    knows: bool
    most: int
    build: Callable[[int], Any]


def adversaries(defence: str, most: int, reach: int) -> Iterator[Adversary]:
    """Who tries a defence: attacks for plain answers, and attacks that allow for the defence."""
    parts = defence.split("+")
    plain = Concealment(scaled=False, shifted=False)
    told = Concealment(scaled="scaling" in parts, shifted="shift" in parts)

    def matching(concealment: Concealment) -> Callable[[int], NetworkMatching]:
        return lambda n: NetworkMatching(
            queries=n, concealment=concealment, starts=2, iterations=1500, narrow=float(reach)
        )

    yield Adversary(
        name="quadratic-extraction",
        knows=defence in (NONE, "noise"),
        most=min(most, 8000),
        build=lambda n: QuadraticExtraction(queries=n, curve_points=0),
    )
    few = min(most, MATCHING_MOST)
    yield Adversary(name="network-matching", knows=True, most=few, build=matching(told))
    if "noise" in parts and not told.scaled:
        # Allowing for a factor that is not there costs one number for each record. In return, the
        # search succeeds where the narrower one ends in a local minimum.
        yield Adversary(
            name="network-matching, allowing for factors",
            knows=True,
            most=few,
            build=matching(Concealment(scaled=True, shifted=True)),
        )
    yield Adversary(
        name="ratio-extraction",
        knows=True,
        most=most,
        build=lambda n: RatioExtraction(queries=n, concealment=told),
    )
    if told != plain:
        yield Adversary(
            name="network-matching, unaware",
            knows=False,
            most=min(most, 2000),
            build=lambda n: NetworkMatching(queries=n, concealment=plain, iterations=1000),
        )


def fidelity_of(result: AttackResult) -> Json:
    """How many labels of the copy agree, on test records and on uniform inputs."""
    return {on: result.metrics[f"fidelity_{on}"].to_json() for on in ("test", "uniform")}


def records_needed(
    adversary: Adversary,
    defence: ServingDefence | None,
    reach: int,
    data: ExtractionData,
    seed: int,
) -> Json:
    """The fewest records of the ladder that reach the goal, and every budget tried."""
    tried: list[Json] = []
    needed: int | None = None
    least = 0.0
    for queries in LADDER:
        if queries > adversary.most or queries < least:
            continue
        rng = np.random.default_rng([seed, queries, reach])
        try:
            result = adversary.build(queries).run(oracle_of(defence, reach, rng), data, rng)
        except BudgetError:
            continue
        agreement, seconds = fidelity_of(result), round(result.seconds, 1)
        tried.append({"records": queries, **agreement, "seconds": seconds})
        worst = max(1 - each["value"] for each in agreement.values())
        if worst <= 1 - GOAL:
            needed = queries
            break
        # Errors fall with the root of the records where noise is what is left.
        if defence is not None and "noise" in defence.name:
            least = queries * min(_JUMP, 0.6 * (worst / (1 - GOAL)) ** 2)
    return {
        "attack": adversary.name,
        "knows": adversary.knows,
        "needed": needed,
        "tried": tried,
    }


def constants_floor(std: float, spread: float, data: ExtractionData, seed: int) -> int:
    """Records below which noise of this std hides the scores' constants, whoever asks whatever.

    A constant enters every answer once, times the factor, however large the query: it cannot be
    estimated better than std / √(records · mean of factor²). Everything else taken as known, this
    is where that error alone leaves the goal's share of labels on uniform inputs.
    """
    assert data.answers is not None
    logits = data.answers.uniform.require_logits()
    labels = data.answers.uniform.labels
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(200, 1, logits.shape[1]))
    twice = 2 * math.log(spread)
    power = 1.0 if spread == 1 else math.sinh(twice) / twice

    def agreement(records: int) -> float:
        error = std / math.sqrt(records * power)
        return float(np.mean([(logits + error * d).argmax(axis=1) == labels for d in drawn]))

    low, high = 1, 1 << 20
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if agreement(middle) >= GOAL else (middle + 1, high)
    return low


def labels_alone(data: ExtractionData, records: int, seed: int) -> Json:
    """What an adversary learns from labels alone: a defence that keeps them cannot cost more."""
    learner = PerceptronLearner(
        hidden=(32,), activation=torch.square, weight_decay=1e-9, iterations=600
    )
    attack = AdaptiveRetraining(queries=records, learner=learner, rounds=6)
    rng = np.random.default_rng(seed)
    result = attack.run(oracle_of(None, 1, rng), data, rng)
    return {
        "attack": "adaptive-retraining",
        "records": records,
        **fidelity_of(result),
        "seconds": round(result.seconds, 1),
    }
