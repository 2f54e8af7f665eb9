"""Reference rows on evasion: peers, the order among attacks, Papernot's chain, and the twins.

The chain runs over the real encrypted service: labels are stolen from it and every example is
sent to it; nothing is asked of the network in the clear.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attacks.core.intervals import Estimate
from attacks.evasion.black_box.square import Square
from attacks.evasion.checks import TITLES, SanityChecks
from attacks.evasion.ensemble import EvasionEnsemble
from attacks.evasion.gradient.pgd import PGD
from attacks.evasion.setting import EvasionData
from attacks.extraction.papernot import PapernotSubstitute
from attacks.extraction.setting import ExtractionData
from attacks.extraction.substitute import Architecture, Perceptron, SmallConvolution
from attacks.extraction.substitute import SubstituteTraining as Training
from attacks.extraction.transferability import transfer_rate
from attacks.oracles.recipes import standard_recipe
from benchmarks.leakage.evasion import peers
from benchmarks.leakage.setting import (
    flat,
    in_the_clear,
    served,
    shuffled,
    trained,
    zoo_oracle,
    zoo_records,
)
from benchmarks.rows import Row
from he_infer import datasets, zoo

QUERIES: Final = 6400
SEEDS: Final = 100
STEALING_EPSILON: Final = 0.3
PUBLISHED: Final = 0.8424
EXAMPLES: Final = 1000
EPSILONS: Final = (0.02, 0.05, 0.1, 0.2, 1.0)
TWIN_EPSILON: Final = 0.1
TWIN_RECORDS: Final = 60
TWIN_QUERIES: Final = 150
_SOURCE: Final = "Papernot et al. 2017, MNIST, 6,400 queries"
_SANITY: Final = "Carlini et al. 2019, sanity checks"


def rows(*, seed: int = 0) -> list[Row]:
    """All rows of this file, in some minutes on one core."""
    return [
        *peers.rows(seed=seed),
        *order_rows(seed=seed),
        *chain_rows(seed=seed),
        *twin_rows(seed=seed),
    ]


def order_rows(*, seed: int = 0) -> Iterator[Row]:
    """The sanity checks on two models of the zoo, and success as epsilon grows."""
    for name, count, epsilon in (("digits-mlp", 200, 0.1), ("tutorial-cnn", 100, 0.05)):
        data = _zoo_data(name, count, epsilon)
        result = SanityChecks().run(zoo_oracle(name), data, np.random.default_rng(seed))
        failed = "; ".join(result.notes)
        yield Row(
            f"sanity checks of evasion on {name}, epsilon {epsilon:g}",
            _SANITY,
            reference={name: 1.0 for name in TITLES},
            ours={check.name: float(check.holds) for check in result.artifact},
            holds=not failed,
            reason=failed or "1 where a check holds; per-record worst case, within intervals",
        )
        yield _growing(name, count, seed)


def _growing(name: str, count: int, seed: int) -> Row:
    success = {}
    for epsilon in EPSILONS:
        data = _zoo_data(name, count, epsilon)
        result = EvasionEnsemble(steps=50, queries=50).run(
            zoo_oracle(name), data, np.random.default_rng(seed)
        )
        success[f"{epsilon:g}"] = result.figure.value
    values = list(success.values())
    return Row(
        f"success of the ensemble on {name} by epsilon",
        _SANITY,
        reference="rises with epsilon, to 1 where it spans the interval",
        ours=success,
        holds=values == sorted(values) and values[-1] == 1.0,
        reason=f"{count} records; APGD with three losses and Square",
    )


def chain_rows(*, seed: int = 0) -> list[Row]:
    """Papernot's chain over the live service, on digits and on MNIST."""
    train, _ = datasets.digits()
    return [
        *_chain(
            "digits-mlp",
            (Perceptron(hidden=(200, 200)),),
            pool=flat(train).inputs,
            seed=seed,
        ),
        *_chain(
            "tutorial-cnn",
            (SmallConvolution(), Perceptron(hidden=(200, 200))),
            pool=None,
            seed=seed,
        ),
    ]


def _chain(
    name: str,
    architectures: tuple[Architecture, ...],
    *,
    pool: NDArray[np.float64] | None,
    seed: int,
) -> Iterator[Row]:
    """``pool``: where the adversary's seeds are from; None takes them off the test set."""
    records = shuffled(zoo_records(name), seed)
    starts = (records.inputs if pool is None else pool)[:SEEDS]
    test = records.select(slice(SEEDS if pool is None else 0, None)).select(slice(0, EXAMPLES))
    data = ExtractionData(
        seeds=test.select(slice(0, 0)), pool=starts, test=test, reference=zoo_oracle(name)
    )
    for architecture in architectures:
        attack = PapernotSubstitute(
            queries=QUERIES,
            seeds=SEEDS,
            epsilon=STEALING_EPSILON,
            architecture=architecture,
            training=Training(epochs=10),
        )
        with served(zoo.load(name), zoo.sample(name, 512), name) as service:
            result = attack.run(service, data, np.random.default_rng(seed))
            substitute = result.artifact.module
            ours = transfer_rate(substitute, service, test, STEALING_EPSILON)
            asked = service.ledger.spent
        kind = type(architecture).__name__
        mnist = name == "tutorial-cnn"
        yield Row(
            f"Papernot's chain over the encrypted service, {name}, {kind}",
            _SOURCE if mnist else f"{_SOURCE}, beside it",
            reference=PUBLISHED,
            ours=ours,
            # The published figure is contradicted only by an interval that lies below it.
            holds=(result.spent.records == QUERIES and ours.high >= PUBLISHED) if mnist else None,
            reason=f"{result.spent.records:,} encrypted label queries from {SEEDS} seeds, then "
            f"{len(test)} FGSM examples at {STEALING_EPSILON:g} sent encrypted: {asked.requests} "
            f"requests, {asked.seconds:.0f} s of service; the substitute's fidelity is "
            f"{result.metrics['fidelity_test']}"
            + ("" if mnist else "; shown, not judged: the published figure is for MNIST"),
        )


def twin_rows(*, seed: int = 0) -> list[Row]:
    """Three attacks with equal budgets on a ReLU network, its polynomial twin, and that served."""
    train, held = datasets.digits()
    pool, moved = flat(train), flat(held, TWIN_RECORDS)
    both = trained(standard_recipe("digits"), pool, seed=seed)
    relu, polynomial = both.relu.module(0), both.polynomial.module(0)
    success: dict[str, dict[str, Estimate]] = {}
    attacks = (
        ("PGD", PGD(restarts=2)),
        (f"Square, {TWIN_QUERIES} queries", Square(queries=TWIN_QUERIES)),
        ("the ensemble", EvasionEnsemble(queries=50)),
    )
    sample = pool.inputs[:512].astype(np.float32)
    with served(polynomial, sample, "twin", batch=64) as service:
        for twin, network, oracle in (
            ("relu", relu, in_the_clear(relu, "relu", (64,))),
            ("polynomial", polynomial, in_the_clear(polynomial, "polynomial", (64,))),
            ("encrypted", polynomial, service),
        ):
            data = EvasionData(
                records=moved, low=0.0, high=1.0, epsilon=TWIN_EPSILON, model=network
            )
            for name, attack in attacks:
                result = attack.run(oracle, data, np.random.default_rng(seed))
                success.setdefault(name, {})[twin] = result.figure
    return [
        Row(
            f"evasion at equal budget, {name}, digits, epsilon {TWIN_EPSILON:g}",
            "this project",
            reference="the served network falls as its weights in the clear do",
            ours={twin: figure.value for twin, figure in found.items()},
            interval=[found["encrypted"].low, found["encrypted"].high],
            holds=found["encrypted"].low <= found["polynomial"].value <= found["encrypted"].high,
            reason=f"{TWIN_RECORDS} test records of one network in three forms, same seeds; the "
            "ReLU original is shown beside it",
        )
        for name, found in success.items()
    ]


def _zoo_data(name: str, count: int, epsilon: float) -> EvasionData:
    return EvasionData(
        records=zoo_records(name).select(slice(0, count)),
        low=0.0,
        high=1.0,
        epsilon=epsilon,
        model=zoo.load(name),
    )
