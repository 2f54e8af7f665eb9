"""Reference rows on stealing whole networks: exact extraction, substitutes, transfer."""

from __future__ import annotations

from typing import Any

import numpy as np

import he_infer
from attacks.core.records import Records
from attacks.core.result import AttackResult
from attacks.extraction.exact.quadratic import QuadraticExtraction
from attacks.extraction.papernot import PapernotSubstitute
from attacks.extraction.setting import ExtractionData
from attacks.extraction.substitute import Perceptron, SmallConvolution, SubstituteTraining
from attacks.oracles.plaintext import TorchOracle
from attacks.oracles.remote import serve
from benchmarks.rows import estimated
from he_infer import zoo

QUERIES = 3000
SEED_RECORDS = 100


def rows(*, seed: int = 0) -> list[dict[str, Any]]:
    """All rows of this file, {name, source, reference, ours, interval, holds, reason}; minutes.

    They rest on zoo models and on test images that ship with the package.
    """
    return [*exact_rows(seed=seed), *papernot_rows(seed=seed)]


def exact_rows(*, seed: int = 0) -> list[dict[str, Any]]:
    """digits-mlp over the live encrypted service, with one request of 3,000 records."""
    name = "digits-mlp"
    data = _data(name, seeds=0, pool=0, seed=seed)
    plan = he_infer.compile(zoo.load(name), zoo.sample(name, 1024), batch=4096, name=name)
    with serve(plan, low=0.0, high=1.0) as oracle:
        result = QuadraticExtraction(queries=QUERIES).run(oracle, data, np.random.default_rng(seed))
    source = "exact extraction of digits-mlp over the encrypted service"
    spent = result.spent
    within = spent.records <= QUERIES and spent.requests == 1 and result.seconds <= 120
    reason = (
        f"{spent.records} records in {spent.requests} request, {result.seconds:.1f} s; "
        f"{result.metrics['channels_recovered'].value:.0f} of 32 channels recovered"
    )
    test, uniform = result.metrics["fidelity_test"], result.metrics["fidelity_uniform"]
    channels = result.metrics["channels_recovered"]
    return [
        estimated(
            f"{name} {what}",
            source,
            reference=reference,
            ours=ours,
            holds=bool(within and ours.value >= reference),
            reason=reason,
        )
        for what, reference, ours in (
            ("label agreement, test", 0.999, test),
            ("label agreement, uniform", 0.99, uniform),
            ("channels recovered", 32, channels),
        )
    ]


def papernot_rows(*, seed: int = 0) -> list[dict[str, Any]]:
    """Transfer of FGSM examples at ε = 0.3 to the polynomial tutorial-cnn, 6,400 label queries,
    from two kinds of substitute: an attacker cannot know beforehand which one transfers."""
    data = _data("tutorial-cnn", seeds=SEED_RECORDS, pool=0, seed=seed)
    found = []
    for what, architecture in (
        ("a convolution", SmallConvolution()),
        ("a perceptron 200-200", Perceptron(hidden=(200, 200))),
    ):
        attack = PapernotSubstitute(
            queries=6400,
            seeds=SEED_RECORDS,
            architecture=architecture,
            training=SubstituteTraining(epochs=10),
        )
        # Not the reference: what judging costs is no query of the attack's.
        oracle = _plaintext("tutorial-cnn")
        result: AttackResult = attack.run(oracle, data, np.random.default_rng(seed))
        fidelity, idle = result.metrics["fidelity_test"], result.baseline["fidelity_test"]
        transfer = result.metrics["transfer"]
        found.append(
            estimated(
                f"Papernot MNIST transfer at 0.3, {what}",
                "Papernot et al. 2017, MNIST, 6,400 queries",
                reference=0.8424,
                ours=transfer,
                # The published figure is contradicted only by an interval that lies below it.
                holds=result.spent.records == 6400 and transfer.high >= 0.8424,
                reason=f"{result.spent.records} label queries to tutorial-cnn in the clear, whose "
                f"labels the service reproduces; the substitute's fidelity is {fidelity}, without "
                f"queries {idle}. The published target was another network",
            )
        )
    return found


def _data(name: str, *, seeds: int, pool: int, seed: int) -> ExtractionData:
    held = zoo.test_set(name)
    inputs = zoo.inputs(name, held).astype(np.float64)
    order = np.random.default_rng(seed).permutation(len(held))
    if seeds + pool == 0:
        order = np.arange(len(held))
    records = Records(inputs=inputs, labels=held.labels).select(order)
    return ExtractionData(
        seeds=records.select(slice(0, seeds)),
        pool=records.inputs[seeds : seeds + pool],
        test=records.select(slice(seeds + pool, None)),
        reference=_plaintext(name),
    )


def _plaintext(name: str) -> TorchOracle:
    shape = zoo.inputs(name, zoo.test_set(name)).shape[1:]
    return TorchOracle(zoo.load(name), name=name, input_shape=shape, low=0.0, high=1.0)
