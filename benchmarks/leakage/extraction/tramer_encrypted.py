"""The linear rows of Tramèr et al. 2016 once more, over the real encrypted service.

The service answers decrypted logits, which carry CKKS noise, so the total variation cannot be
smaller than that noise. No published figure is comparable: these rows stand beside the plaintext
ones of ``tramer.py``; they are shown and not judged. Each row takes one split. A perceptron of tanh
units is left out: encrypted, its activations would be polynomials, and it another model.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch

from attacks.core.oracle import Oracle
from attacks.core.result import AttackResult
from attacks.core.wrappers import LabelsOnly
from attacks.oracles.estimator import EstimatorOracle
from attacks.oracles.remote import serve
from benchmarks.leakage.extraction.tramer import (
    MANY_CLASSES,
    SOURCE,
    Attack,
    Split,
    binary_tasks,
    load,
    lowd_meek,
    one_vs_rest,
    pooled,
    regression,
    retraining,
    solving,
)
from benchmarks.rows import Row
from he_infer.compiler.pipeline import compile

BATCH: Final = 128
_SEED: Final = 0
_REASON: Final = (
    "shown, not judged: the published figure is for answers without noise, these were decrypted; "
)


def rows() -> list[Row]:
    """All rows, in about two minutes."""
    tasks = list(binary_tasks(_SEED))
    many = [load(name, _SEED) for name in MANY_CLASSES]
    return [
        _shown(
            "equation solving, binary logistic regression, encrypted",
            "on plaintext answers: d + 1 queries, total variation < 1e-9",
            [_steal(task, regression(), solving()) for task in tasks],
        ),
        _shown(
            "equation solving, softmax, encrypted",
            "on plaintext answers: c(d + 1) queries, total variation < 1e-7",
            [_steal(split, regression(), solving()) for split in many],
        ),
        _shown(
            "equation solving, one-vs-rest, encrypted",
            "on plaintext answers: c(d + 1) queries, total variation < 1e-7",
            [_steal(split, one_vs_rest(), solving()) for split in many],
            # What is served are decision values; their softmax is not one-vs-rest's probability.
            distribution=False,
        ),
        _shown(
            "Lowd–Meek, labels only, encrypted",
            "on plaintext answers: about 2,050 queries on average, 5,650 at most",
            [_steal(task, regression(), lowd_meek, labels=True) for task in tasks],
        ),
        _shown(
            "adaptive retraining, labels only, encrypted",
            "on plaintext answers: 827 queries; 1 − R > 99 %",
            [_steal(task, regression(), retraining, labels=True) for task in tasks],
        ),
    ]


def _steal(split: Split, estimator: Any, attack: Attack, *, labels: bool = False) -> AttackResult:
    estimator.fit(split.train.inputs, split.train.labels)
    reference = EstimatorOracle(estimator, name=split.name, low=-1.0, high=1.0)
    served, sample = _layer(estimator), split.train.inputs
    plan = compile(served, sample, name=split.name.replace("_", "-"), batch=BATCH)
    with serve(plan, low=-1.0, high=1.0) as service:
        oracle: Oracle = LabelsOnly(service) if labels else service
        result: AttackResult = attack(oracle).run(
            oracle, split.attack_data(reference), np.random.default_rng(_SEED)
        )
    return result


def _layer(estimator: Any) -> torch.nn.Module:
    """The estimator's decision values, which are what can be served encrypted."""
    parts = getattr(estimator, "estimators_", [estimator])
    weights = np.concatenate([np.atleast_2d(each.coef_) for each in parts])
    layer = torch.nn.Linear(weights.shape[1], weights.shape[0], dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights))
        layer.bias.copy_(torch.from_numpy(np.concatenate([e.intercept_ for e in parts])))
    return layer.eval()


def _shown(
    name: str, reference: str, results: list[AttackResult], *, distribution: bool = True
) -> Row:
    found = pooled(
        name,
        reference,
        results,
        judge=None,
        reason=_REASON + ", ".join(result.oracle for result in results),
        source=f"{SOURCE}, beside it",
    )
    if not distribution:
        found.ours["total_variation_worst"] = None
    found.ours["requests_max"] = max(result.spent.requests for result in results)
    return found
