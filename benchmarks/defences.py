"""What defences of a served model cost a thief, in records, and what they cost the owner.

    for each defence      in the clear, wrapped: every attacker, budgets upwards, until 99 % of the
                          labels agree on test records and on uniform inputs
                          encrypted: levels, bits of the first prime, milliseconds, real keys

Two thieves: one asks within the interval that inputs are meant to lie in, one leaves it as far as
replies stay right, which no server that cannot read queries can prevent. How far that is, the
plan's first prime decides; it is measured with real keys. ``defences_live`` repeats the cheapest
of them over the service.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from attacks.defences.serving import ServingDefence, serving_defences
from attacks.errors import AttackError, BudgetError
from attacks.extraction.concealed import Concealment
from attacks.extraction.learners import PerceptronLearner
from attacks.extraction.matching import NetworkMatching
from attacks.extraction.quadratic import QuadraticExtraction
from attacks.extraction.ratios import RatioExtraction
from attacks.extraction.retraining import AdaptiveRetraining
from attacks.extraction.setting import ExtractionData
from attacks.metrics.fidelity import ReferenceAnswers
from attacks.metrics.intervals import bootstrap
from attacks.oracle import Oracle
from attacks.oracles.channels import PlanChannel
from attacks.oracles.plaintext import TorchOracle
from attacks.records import Records
from benchmarks.record import host
from he_infer import zoo
from he_infer.client_spec import OutOfRangeWarning
from he_infer.compiler import compile
from he_infer.errors import HEInferError
from he_infer.plan import Plan
from he_infer.privacy import FunctionPrivacy

MODEL: Final = "digits-mlp"
GOAL: Final = 0.99
LADDER: Final = (500, 600, 700, 1000, 1400, 2000, 2700, 4000, 5600, 8000, 11000, 16000, 32000)
MATCHING_MOST: Final = 8000  # beyond, least squares is what fits a minute
STEPS: Final = (1, 2, 3, 4, 6, 8, 12, 16)  # times the half-width of the stated interval
PROBES: Final = 64
NONE: Final = "none"
_JUMP: Final = 2.0  # a failure's excess says how many times more records to try next, at most

Row = dict[str, Any]


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
            result = attacker.build(queries).run(_oracle(defence, reach, rng), data, rng)
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


def accuracy_served(defence: ServingDefence | None, data: ExtractionData, seed: int) -> Row:
    """Accuracy of served answers on test records, mean of 64 answers to each, and its change."""
    inputs, truth = data.test.inputs, data.test.labels
    oracle = _oracle(defence, 1, np.random.default_rng(seed))
    right = np.mean([oracle.query(inputs).labels == truth for _ in range(64)], axis=0)
    plain = _oracle(None, 1, np.random.default_rng(seed)).query(inputs).labels == truth
    rng = np.random.default_rng(seed)
    return {
        name: bootstrap(
            lambda index, values=values: float(values[index].mean()),  # type: ignore[misc]
            len(truth),
            rng,
            method="bootstrap over records",
        ).to_json()
        for name, values in (("accuracy", right), ("lost", plain - right))
    }


def plan_for(options: tuple[str, ...], batch: int, precision_bits: int = 10) -> Plan:
    """digits-mlp compiled with a defence's options, as ``he-infer compile`` takes them."""
    named = dict(zip(options[::2], map(float, options[1::2]), strict=True))
    privacy = FunctionPrivacy.for_precision(
        precision_bits,
        noise_std=named.get("--noise-std", 0.0),
        scaling=named.get("--scaling", 1.0),
        shift=named.get("--shift", 0.0),
    )
    return compile(
        zoo.load(MODEL),
        zoo.sample(MODEL, 1024),
        name=MODEL,
        batch=batch,
        precision_bits=precision_bits,
        privacy=privacy,
    )


def prices(plans: Mapping[str, Plan], repeats: int) -> dict[str, Row]:
    """Levels, bits and milliseconds with real keys; the plans take turns, so that all see the
    same machine."""
    channels = {name: PlanChannel(plan) for name, plan in plans.items()}
    queries = {
        name: channel.query(channel.spec.pack(zoo.sample(MODEL, plan.batch)).astype(np.complex128))
        for (name, channel), plan in zip(channels.items(), plans.values(), strict=True)
    }
    times: dict[str, list[float]] = {name: [] for name in plans}
    for _ in range(repeats + 1):
        for name, channel in channels.items():
            channel.answer(queries[name])
            times[name].append(channel.evaluate_ms)
    return {
        name: {
            "levels": plan.params.max_level,
            "first_prime_bits": plan.params.primes[0].bit_length(),
            "scale_bits": round(math.log2(plan.scale)),
            "defence_bits": round(plan.privacy.room_bits(plan.output_range, plan.batch), 1),
            "evaluate_ms": round(statistics.median(times[name][1:]), 2),
            "fastest_ms": round(min(times[name][1:]), 2),
        }
        for name, plan in plans.items()
    }


def reach_of(plan: Plan, seed: int) -> int:
    """How many times the half-width of the stated interval records may have before replies
    overflow: the widest of ``STEPS`` at which no answer of at least ``PROBES`` errs by 5 % of
    their spread, beside the factor, the shift, the noise and the flooding of its plan; 0 if
    none is right."""
    channel, rng = PlanChannel(plan), np.random.default_rng(seed)
    privacy, reach = plan.privacy, 0
    for step in STEPS:
        for _ in range(-(-PROBES // plan.batch)):
            z = rng.integers(-1, 2, (plan.batch, *plan.graph.input.shape))
            inputs = 0.5 + step / 2 * z
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", OutOfRangeWarning)
                slots = channel.ask(channel.spec.pack(inputs).astype(np.complex128)).real
            wanted = _oracle(None, step, rng).query(inputs).require_logits()
            answers = channel.spec.unpack(slots, plan.batch)
            error = _unexplained(answers, wanted, privacy.scaling > 1, privacy.shift > 0)
            allowed = 6 * (privacy.noise_std + privacy.flooding_std)
            if not error < 0.05 * wanted.std() + allowed:
                return reach
        reach = step
    return reach


def _unexplained(
    answers: NDArray[np.float64], wanted: NDArray[np.float64], scaled: bool, shifted: bool
) -> float:
    """Largest difference once the best factor and shift of each record, if any, are taken off."""
    if shifted:
        answers = answers - answers.mean(axis=1, keepdims=True)
        wanted = wanted - wanted.mean(axis=1, keepdims=True)
    if scaled:
        factors = (answers * wanted).sum(axis=1) / (wanted**2).sum(axis=1)
        wanted = factors[:, None] * wanted
    return float(np.abs(answers - wanted).max())


def labels_alone(data: ExtractionData, records: int, seed: int) -> Row:
    """What a thief gets who reads labels only: no defence that keeps them costs more."""
    learner = PerceptronLearner(
        hidden=(32,), activation=torch.square, weight_decay=1e-9, iterations=600
    )
    attack = AdaptiveRetraining(queries=records, learner=learner, rounds=6)
    rng = np.random.default_rng(seed)
    result = attack.run(_oracle(None, 1, rng), data, rng)
    return {
        "attack": "adaptive-retraining",
        "records": records,
        "test": result.metrics["fidelity_test"].to_json(),
        "uniform": result.metrics["fidelity_uniform"].to_json(),
        "seconds": round(result.seconds, 1),
    }


def run(options: argparse.Namespace, tell: Callable[[str], None]) -> Row:
    """Everything, as one JSON object."""
    data = data_of(options.seed)
    known = known_defences(options.noise_std)
    chosen = chosen_of(known, options.only)
    wanted = options.attacks.split(",") if options.attacks else ()
    costs = {str(batch): _priced(known, chosen, batch, options) for batch in (1, 256)}
    tell("prices: done")
    found: list[Row] = []
    for name in chosen:
        defence = known[name]
        cells = []
        for reach in sorted({1, costs["1"][name]["reach"]}):
            for attacker in attackers(
                "noise" if name == "precision" else name, options.most, reach
            ):
                if wanted and attacker.name not in wanted:
                    continue
                cell = records_needed(attacker, defence, reach, data, options.seed)
                cells.append({"reach": reach, **cell})
                tell(f"{name}, reach {reach}, {attacker.name}: {cell['needed'] or 'not reached'}")
        std = _strength(defence, "--noise-std")
        floor = None
        if std:
            spread = _strength(defence, "--scaling") or 1.0
            floor = constants_floor(std, spread, data, options.seed)
        found.append(
            {
                "defence": name,
                "keeps_labels": defence is None or defence.keeps_labels,
                **accuracy_served(defence, data, options.seed),
                "constants_floor": floor,
                "cells": cells,
            }
        )
    return {
        "model": MODEL,
        "goal": GOAL,
        "noise_std": options.noise_std,
        "seed": options.seed,
        "host": host(),
        "defences": found,
        "prices": costs,
        "labels_alone": [labels_alone(data, n, options.seed) for n in options.labels],
    }


def _priced(
    known: Mapping[str, ServingDefence | None],
    chosen: list[str],
    batch: int,
    options: argparse.Namespace,
) -> dict[str, Row]:
    """What the plan of each defence, and of none, costs, and how far it can be asked."""
    plans = {}
    for name in dict.fromkeys((NONE, *chosen)):  # what is not defended is what prices are beside
        defence = known[name]
        given = () if defence is None or name == "precision" else defence.options
        plans[name] = plan_for(given, batch, _bits(name))
    found = prices(plans, options.repeats)
    for name, plan in plans.items():
        found[name]["reach"] = reach_of(plan, options.seed)
    return found


def known_defences(noise_std: float) -> dict[str, ServingDefence | None]:
    """By name, with none first and coarse outputs last."""
    known: dict[str, ServingDefence | None] = {NONE: None}
    known |= serving_defences(noise_std=noise_std)
    known["precision"] = _coarse()
    return known


def chosen_of(known: Mapping[str, ServingDefence | None], only: str | None) -> list[str]:
    """What ``--only`` names; raises AttackError for a name that is none."""
    chosen = only.split(",") if only else list(known)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise AttackError(f"--only takes {', '.join(known)}, got {', '.join(unknown)}")
    return chosen


COARSE_BITS: Final = 2


def _coarse() -> ServingDefence:
    """Outputs to two bits after the point: flooding of 2^−3, as a client of one copy sees it."""
    noise = serving_defences(noise_std=2.0 ** -(COARSE_BITS + 1))["noise"]
    return replace(noise, name="precision, as noise")


def _bits(name: str) -> int:
    return COARSE_BITS if name == "precision" else 10


def _strength(defence: ServingDefence | None, option: str) -> float:
    if defence is None or option not in defence.options:
        return 0.0
    return float(defence.options[defence.options.index(option) + 1])


def _oracle(defence: ServingDefence | None, reach: int, rng: np.random.Generator) -> Oracle:
    bare = TorchOracle(
        zoo.load(MODEL),
        name=MODEL,
        input_shape=(64,),
        low=0.5 - reach / 2,
        high=0.5 + reach / 2,
    )
    return bare if defence is None else defence.wrap(bare, rng)


def data_of(seed: int) -> ExtractionData:
    """What fidelity is measured on: test records, and the model's own answers."""
    held = zoo.test_set(MODEL)
    inputs = np.asarray(zoo.inputs(MODEL, held), dtype=np.float64)
    test = Records(inputs=inputs, labels=held.labels.astype(np.int64))
    nothing = Records(inputs=inputs[:0], labels=test.labels[:0])
    oracle = _oracle(None, 1, np.random.default_rng(seed))
    data = ExtractionData(seeds=nothing, pool=inputs[:0], test=test, reference=oracle)
    return replace(data, answers=ReferenceAnswers.of(data, np.random.default_rng(seed)))


def main(options: argparse.Namespace) -> int:
    """Measure, write ``--json``, print the table; 2 for an error."""
    from benchmarks import defences_live
    from benchmarks.defences_table import lines

    torch.set_num_threads(options.threads)
    live = options.live is not None
    try:
        found = (defences_live.run if live else run)(
            options, lambda line: print(line, file=sys.stderr, flush=True)
        )
    except (AttackError, HEInferError) as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("\n".join(defences_live.lines(found["live"]) if live else lines(found)))
    return 0
