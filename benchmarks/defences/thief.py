"""What a defence costs a thief: every attacker, budgets upwards, until the labels agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from attacks.defences.serving import ServingDefence
from attacks.errors import BudgetError
from attacks.extraction.exact.concealed import Concealment
from attacks.extraction.exact.matching import NetworkMatching
from attacks.extraction.exact.quadratic import QuadraticExtraction
from attacks.extraction.exact.ratios import RatioExtraction
from attacks.extraction.learners import PerceptronLearner
from attacks.extraction.setting import ExtractionData
from attacks.extraction.tramer.retraining import AdaptiveRetraining
from benchmarks.defences.setting import NONE, Row, oracle_of

GOAL: Final = 0.99
LADDER: Final = (500, 600, 700, 1000, 1400, 2000, 2700, 4000, 5600, 8000, 11000, 16000, 32000)
MATCHING_MOST: Final = 8000  # beyond, least squares is what fits a minute
_JUMP: Final = 2.0  # a failure's excess says how many times more records to try next, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Attacker:
    """``knows``: whether it was made for the defence. ``most``: records it can take."""

    name: str
    knows: bool
    most: int
    build: Callable[[int], Any]


def attackers(defence: str, most: int, reach: int) -> Iterator[Attacker]:
    """Who tries a defence: what was built for plain answers, and what knows of it."""
    parts = defence.split("+")
    plain = Concealment(scaled=False, shifted=False)
    told = Concealment(scaled="scaling" in parts, shifted="shift" in parts)
    yield Attacker(
        name="quadratic-extraction",
        knows=defence in (NONE, "noise"),
        most=min(most, 8000),
        build=lambda n: QuadraticExtraction(queries=n, curve_points=0),
    )
    yield Attacker(
        name="network-matching",
        knows=True,
        most=min(most, MATCHING_MOST),
        build=lambda n: NetworkMatching(
            queries=n, concealment=told, starts=2, iterations=1500, narrow=float(reach)
        ),
    )
    if "noise" in parts and not told.scaled:
        # Allowing for a factor that is not there costs a number a record, and finds its way where
        # the narrower search ends in a local minimum.
        allowing = Concealment(scaled=True, shifted=True)
        yield Attacker(
            name="network-matching, allowing for factors",
            knows=True,
            most=min(most, MATCHING_MOST),
            build=lambda n: NetworkMatching(
                queries=n, concealment=allowing, starts=2, iterations=1500, narrow=float(reach)
            ),
        )
    yield Attacker(
        name="ratio-extraction",
        knows=True,
        most=most,
        build=lambda n: RatioExtraction(queries=n, concealment=told),
    )
    if told != plain:
        yield Attacker(
            name="network-matching, unaware",
            knows=False,
            most=min(most, 2000),
            build=lambda n: NetworkMatching(queries=n, concealment=plain, iterations=1000),
        )


def records_needed(
    attacker: Attacker, defence: ServingDefence | None, reach: int, data: ExtractionData, seed: int
) -> Row:
    """The fewest records of the ladder that reach the goal, and every budget tried."""
    tried: list[Row] = []
    least = 0.0
    for queries in LADDER:
        if queries > attacker.most or queries < least:
            continue
        rng = np.random.default_rng([seed, queries, reach])
        try:
            result = attacker.build(queries).run(oracle_of(defence, reach, rng), data, rng)
        except BudgetError:
            continue
        test, uniform = result.metrics["fidelity_test"], result.metrics["fidelity_uniform"]
        tried.append(
            {
                "records": queries,
                "test": test.to_json(),
                "uniform": uniform.to_json(),
                "seconds": round(result.seconds, 1),
            }
        )
        worst = max(1 - test.value, 1 - uniform.value)
        if worst <= 1 - GOAL:
            return {"attack": attacker.name, "knows": attacker.knows, "needed": queries} | {
                "tried": tried
            }
        # Errors fall with the root of the records where noise is what is left.
        if defence is not None and "noise" in defence.name:
            least = queries * min(_JUMP, 0.6 * (worst / (1 - GOAL)) ** 2)
    return {"attack": attacker.name, "knows": attacker.knows, "needed": None, "tried": tried}


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


def labels_alone(data: ExtractionData, records: int, seed: int) -> Row:
    """What a thief gets who reads labels only: no defence that keeps them costs more."""
    learner = PerceptronLearner(
        hidden=(32,), activation=torch.square, weight_decay=1e-9, iterations=600
    )
    attack = AdaptiveRetraining(queries=records, learner=learner, rounds=6)
    rng = np.random.default_rng(seed)
    result = attack.run(oracle_of(None, 1, rng), data, rng)
    return {
        "attack": "adaptive-retraining",
        "records": records,
        "test": result.metrics["fidelity_test"].to_json(),
        "uniform": result.metrics["fidelity_uniform"].to_json(),
        "seconds": round(result.seconds, 1),
    }
