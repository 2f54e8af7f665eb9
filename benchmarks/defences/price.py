"""What a defence costs the owner of a model: accuracy, levels, bits, milliseconds, and reach."""

from __future__ import annotations

import argparse
import math
import statistics
import warnings
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attacks.core.intervals import bootstrap
from attacks.defences.serving import ServingDefence
from attacks.extraction.setting import ExtractionData
from attacks.oracles.channels import PlanChannel
from benchmarks.defences.setting import MODEL, NONE, bits_of, oracle_of, plan_for
from benchmarks.rows import Json
from he_infer import zoo
from he_infer.plan.client_spec import OutOfRangeWarning
from he_infer.plan.plan import Plan

STEPS: Final = (1, 2, 3, 4, 6, 8, 12, 16)  # times the half-width of the stated interval
PROBES: Final = 64


def accuracy_served(defence: ServingDefence | None, data: ExtractionData, seed: int) -> Json:
    """Accuracy of served answers on test records, mean of 64 answers to each, and its change."""
    inputs, truth = data.test.inputs, data.test.labels
    oracle = oracle_of(defence, 1, np.random.default_rng(seed))
    right = np.mean([oracle.query(inputs).labels == truth for _ in range(64)], axis=0)
    plain = oracle_of(None, 1, np.random.default_rng(seed)).query(inputs).labels == truth
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


def priced(
    known: Mapping[str, ServingDefence | None],
    chosen: list[str],
    batch: int,
    options: argparse.Namespace,
) -> dict[str, Json]:
    """What the plan of each defence, and of none, costs, and how far it can be asked."""
    plans = {}
    for name in dict.fromkeys((NONE, *chosen)):  # what is not defended is what prices are beside
        # Coarse outputs are noise in the clear only: their plan floods instead.
        defence = None if name == "precision" else known[name]
        plans[name] = plan_for(defence, batch, bits_of(name))
    times = evaluation_ms(plans, options.repeats)
    return {
        name: {
            "levels": plan.params.max_level,
            "first_prime_bits": plan.params.primes[0].bit_length(),
            "scale_bits": round(math.log2(plan.scale)),
            "defence_bits": round(plan.privacy.room_bits(plan.output_range, plan.batch), 1),
            "evaluate_ms": round(statistics.median(times[name]), 2),
            "fastest_ms": round(min(times[name]), 2),
            "reach": reach_of(plan, options.seed),
        }
        for name, plan in plans.items()
    }


def evaluation_ms(plans: Mapping[str, Plan], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each evaluation with real keys, after one that is not counted.

    The plans take turns, so that all see the same machine.
    """
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
    return {name: found[1:] for name, found in times.items()}


def reach_of(plan: Plan, seed: int) -> int:
    """How far out records may lie before replies overflow, in half-widths of the stated interval.

    It is the widest of ``STEPS`` at which no answer of at least ``PROBES`` errs by 5 % of their
    spread, beside the factor, the shift, the noise and the flooding of its plan; 0 if none is
    right.
    """
    channel, rng = PlanChannel(plan), np.random.default_rng(seed)
    privacy, reach = plan.privacy, 0
    for step in STEPS:
        for _ in range(-(-PROBES // plan.batch)):
            z = rng.integers(-1, 2, (plan.batch, *plan.graph.input.shape))
            inputs = 0.5 + step / 2 * z
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", OutOfRangeWarning)
                slots = channel.ask(channel.spec.pack(inputs).astype(np.complex128)).real
            wanted = oracle_of(None, step, rng).query(inputs).require_logits()
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
