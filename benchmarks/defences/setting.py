"""What the benchmark of defences is about: the model, its defences as wrappers and as plans."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from attacks.core.oracle import Oracle
from attacks.defences.serving import ServingDefence, serving_defences
from attacks.extraction.setting import ExtractionData, ReferenceAnswers
from attacks.oracles.plaintext import TorchOracle
from benchmarks.leakage.setting import zoo_records
from he_infer import zoo
from he_infer.compiler.pipeline import compile
from he_infer.plan.plan import Plan
from he_infer.plan.privacy import FunctionPrivacy

MODEL: Final = "digits-mlp"
NONE: Final = "none"
COARSE_BITS: Final = 2


def known_defences(noise_std: float) -> dict[str, ServingDefence | None]:
    """By name, with none first and coarse outputs last."""
    known: dict[str, ServingDefence | None] = {NONE: None}
    known |= serving_defences(noise_std=noise_std)
    known["precision"] = _coarse()
    return known


def _coarse() -> ServingDefence:
    """Outputs to two bits after the point: flooding of 2^−3, as a client of one copy sees it."""
    noise = serving_defences(noise_std=2.0 ** -(COARSE_BITS + 1))["noise"]
    return replace(noise, name="precision, as noise")


def bits_of(name: str) -> int:
    """Bits of precision that a defence's plan is compiled for."""
    return COARSE_BITS if name == "precision" else 10


def oracle_of(defence: ServingDefence | None, reach: int, rng: np.random.Generator) -> Oracle:
    """The model in the clear behind a defence, for records ``reach`` times the interval."""
    bare = TorchOracle(
        zoo.load(MODEL),
        name=MODEL,
        input_shape=(64,),
        low=0.5 - reach / 2,
        high=0.5 + reach / 2,
    )
    return bare if defence is None else defence.wrap(bare, rng)


def plan_for(defence: ServingDefence | None, batch: int, precision_bits: int = 10) -> Plan:
    """digits-mlp compiled with a defence."""
    strengths = {} if defence is None else defence.privacy
    return compile(
        zoo.load(MODEL),
        zoo.sample(MODEL, 1024),
        name=MODEL,
        batch=batch,
        precision_bits=precision_bits,
        privacy=FunctionPrivacy.for_precision(precision_bits, **strengths),
    )


def data_of(seed: int) -> ExtractionData:
    """What fidelity is measured on: test records, and the model's own answers."""
    test = zoo_records(MODEL)
    nothing = test.select(slice(0, 0))
    oracle = oracle_of(None, 1, np.random.default_rng(seed))
    data = ExtractionData(seeds=nothing, pool=nothing.inputs, test=test, reference=oracle)
    return replace(data, answers=ReferenceAnswers.of(data, np.random.default_rng(seed)))
