"""Counts that no machine changes: key switches, transforms and bytes of every network we ship.

A change here is a change of what users pay, in either direction: look at it, then update the
figures on purpose.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from benchmarks.inference import cases
from he_infer.compiler.pipeline import compile as compile_model
from he_infer.plan.plan import Plan
from he_infer.runtime.costs import CostModel
from he_infer.runtime.executor import count_costs
from he_infer.wire import NO_DIGEST, Expected

# One transform of length 8192 costs a unit, everything else nothing.
UNIT = dataclasses.replace(
    CostModel(),
    transform_us=1e3,
    word_ns=0.0,
    plain_word_ns=0.0,
    number_word_ns=0.0,
    key_word_ns=0.0,
    add_ns=0.0,
    ciphertext_ms=0.0,
)
COUNTS: dict[str, dict[str, int]] = {
    "digits-mlp": {
        "key switches": 17,
        "transforms": 168,
        "key bytes": 6381384,
        "query bytes": 113864,
    },
    "tutorial-cnn": {
        "key switches": 34,
        "transforms": 377,
        "key bytes": 12280072,
        "query bytes": 160968,
    },
    "mlp-784-128-10": {
        "key switches": 27,
        "transforms": 214,
        "key bytes": 8684232,
        "query bytes": 111816,
    },
    "mnist-lola": {
        "key switches": 47,
        "transforms": 382,
        "key bytes": 15139976,
        "query bytes": 321800,
    },
    "mnist-deep": {
        "key switches": 103,
        "transforms": 1305,
        "key bytes": 130198856,
        "query bytes": 432328,
    },
}


def counts(plan: Plan) -> dict[str, int]:
    """Transforms are in those of length 8192; bytes are of whole envelopes."""
    costs = count_costs(plan, CostModel())
    spec = plan.client_spec
    query = Expected.query(
        plan.params,
        plan_digest=spec.plan_digest,
        keys_digest=NO_DIGEST,
        count=spec.n_input_ciphertexts,
        scale=spec.input_scale,
    )
    return {
        "key switches": costs.key_switches,
        "transforms": round(count_costs(plan, UNIT).milliseconds),
        "key bytes": Expected.evaluation_keys(plan.params, plan.key_levels).total_bytes,
        "query bytes": query.total_bytes,
    }


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n == "mnist-deep" else []) for n in COUNTS],
)
def test_counts_are_as_recorded(name: str) -> None:
    case: Any = cases.load(name)
    plan = compile_model(case.model, case.sample, name=name)
    assert counts(plan) == COUNTS[name]
