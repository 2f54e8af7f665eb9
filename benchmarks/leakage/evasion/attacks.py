"""Reference rows on evasion: peers, the order among attacks, Papernot's chain, and the twins.

The chain runs over the real encrypted service: labels are stolen from it and every example is
sent to it; nothing is asked of the network in the clear.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from torch import nn

import he_infer
from attacks.core.intervals import Estimate
from attacks.core.oracle import Oracle
from attacks.core.records import Records
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
from attacks.oracles.plaintext import TorchOracle
from attacks.oracles.recipes import standard_recipe
from attacks.oracles.remote import RemoteOracle, serve
from attacks.training.recipe import train_twins
from benchmarks.leakage.evasion import peers as leakage_evasion_peers
from benchmarks.rows import Row, estimated, row
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
        *leakage_evasion_peers.rows(seed=seed),
        *order_rows(seed=seed),
        *chain_rows(seed=seed),
        *twin_rows(seed=seed),
    ]


def order_rows(*, seed: int = 0) -> list[Row]:
    """The sanity checks on two models of the zoo, and success as epsilon grows."""
    found = []
    for name, count, epsilon in (("digits-mlp", 200, 0.1), ("tutorial-cnn", 100, 0.05)):
        data = _zoo_data(name, count, epsilon)
        result = SanityChecks().run(_clear(name), data, np.random.default_rng(seed))
        failed = "; ".join(result.notes)
        found.append(
            row(
                f"sanity checks of evasion on {name}, epsilon {epsilon:g}",
                _SANITY,
                reference={name: 1.0 for name in TITLES},
                ours={check.name: float(check.holds) for check in result.artifact},
                interval=None,
                holds=not failed,
                reason=failed or "1 where a check holds; per-record worst case, within intervals",
            )
        )
        found.append(_growing(name, count, seed))
    return found


def _growing(name: str, count: int, seed: int) -> Row:
    success = {}
    for epsilon in EPSILONS:
        data = _zoo_data(name, count, epsilon)
        result = EvasionEnsemble(steps=50, queries=50).run(
            _clear(name), data, np.random.default_rng(seed)
        )
        success[f"{epsilon:g}"] = result.figure.value
    values = list(success.values())
    return row(
        f"success of the ensemble on {name} by epsilon",
        _SANITY,
        reference="rises with epsilon, to 1 where it spans the interval",
        ours=success,
        interval=None,
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
            pool=train.images.reshape(len(train), -1) / float(train.max_value),
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
    name: str, architectures: tuple[Architecture, ...], *, pool: Any, seed: int
) -> Iterator[Row]:
    """``pool``: where the attacker's seeds are from; None takes them off the test set."""
    held = zoo.test_set(name)
    records = Records(
        inputs=zoo.inputs(name, held).astype(np.float64), labels=held.labels.astype(np.int64)
    ).select(np.random.default_rng(seed).permutation(len(held)))
    starts = records.inputs[:SEEDS] if pool is None else np.asarray(pool[:SEEDS], dtype=np.float64)
    test = records.select(slice(SEEDS if pool is None else 0, None)).select(slice(0, EXAMPLES))
    data = ExtractionData(
        seeds=test.select(slice(0, 0)), pool=starts, test=test, reference=_clear(name)
    )
    for architecture in architectures:
        attack = PapernotSubstitute(
            queries=QUERIES,
            seeds=SEEDS,
            epsilon=STEALING_EPSILON,
            architecture=architecture,
            training=Training(epochs=10),
        )
        with _served(zoo.load(name), zoo.sample(name, 512), name) as service:
            result = attack.run(service, data, np.random.default_rng(seed))
            substitute = result.artifact.module
            ours = transfer_rate(substitute, service, test, STEALING_EPSILON)
            asked = service.ledger.spent
        kind = type(architecture).__name__
        mnist = name == "tutorial-cnn"
        yield estimated(
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
    scale = float(train.max_value)
    pool = Records(
        inputs=train.images.reshape(len(train), -1) / scale, labels=train.labels.astype(np.int64)
    )
    recipe = standard_recipe("digits")
    members = np.ones((1, len(pool)), dtype=np.bool_)
    trained = train_twins(recipe, pool, members, seeds=[seed])
    relu, polynomial = trained.relu.module(0), trained.polynomial.module(0)
    moved = Records(
        inputs=held.images.reshape(len(held), -1) / scale, labels=held.labels.astype(np.int64)
    ).select(slice(0, TWIN_RECORDS))
    success: dict[str, dict[str, Estimate]] = {}
    attacks = (
        ("PGD", PGD(restarts=2)),
        (f"Square, {TWIN_QUERIES} queries", Square(queries=TWIN_QUERIES)),
        ("the ensemble", EvasionEnsemble(queries=50)),
    )
    sample = pool.inputs[:512].astype(np.float32)
    with _served(polynomial, sample, "twin", batch=64) as service:
        for twin, network, oracle in (
            ("relu", relu, _of(relu, "relu")),
            ("polynomial", polynomial, _of(polynomial, "polynomial")),
            ("encrypted", polynomial, service),
        ):
            data = EvasionData(
                records=moved, low=0.0, high=1.0, epsilon=TWIN_EPSILON, model=network
            )
            for name, attack in attacks:
                result = attack.run(oracle, data, np.random.default_rng(seed))
                success.setdefault(name, {})[twin] = result.figure
    return [
        row(
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


@contextmanager
def _served(
    network: nn.Module, sample: Any, name: str, *, batch: int = 1024
) -> Iterator[RemoteOracle]:
    plan = he_infer.compile(network, sample, batch=batch, name=name)
    with serve(plan, low=0.0, high=1.0) as service:
        yield service


def _zoo_data(name: str, count: int, epsilon: float) -> EvasionData:
    held = zoo.test_set(name)
    inputs = zoo.inputs(name, held).astype(np.float64)[:count]
    return EvasionData(
        records=Records(inputs=inputs, labels=held.labels[:count].astype(np.int64)),
        low=0.0,
        high=1.0,
        epsilon=epsilon,
        model=zoo.load(name),
    )


def _clear(name: str) -> Oracle:
    shape = zoo.inputs(name, zoo.test_set(name)).shape[1:]
    return TorchOracle(zoo.load(name), name=name, input_shape=shape, low=0.0, high=1.0)


def _of(network: nn.Module, name: str) -> Oracle:
    return TorchOracle(network, name=name, input_shape=(64,), low=0.0, high=1.0)
