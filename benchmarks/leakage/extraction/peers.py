"""The same knockoff attack by us and by ART: one oracle, one pool, one budget, one architecture."""

from __future__ import annotations

import time
import warnings
from typing import Any, Final

import numpy as np

from attacks.core.intervals import Estimate, clopper_pearson
from attacks.core.oracle import Oracle
from attacks.core.records import Records
from attacks.errors import AbilityError
from attacks.extraction.knockoff import Knockoff
from attacks.extraction.setting import ExtractionData
from attacks.extraction.substitute import Perceptron, SubstituteTraining
from attacks.oracles.art import as_art_classifier
from attacks.oracles.plaintext import TorchOracle
from benchmarks.rows import estimated
from he_infer import zoo

NAME: Final = "tutorial-cnn"
QUERIES: Final = 2000
EPOCHS: Final = 20
BATCH: Final = 64
RATE: Final = 1e-3
HIDDEN: Final = (128,)


def rows(*, seed: int = 0) -> list[dict[str, Any]]:
    """One row: our fidelity against ART's on the same test images, and the ratio of times."""
    name = f"knockoff nets beside ART, {QUERIES} queries"
    source = "ART, KnockoffNets, random strategy"
    test = zoo.test_set(NAME)
    inputs = zoo.inputs(NAME, test).astype(np.float64)
    order = np.random.default_rng(seed).permutation(len(test))
    records = Records(inputs=inputs, labels=test.labels).select(order)
    pool, held_out = records.inputs[:QUERIES], records.select(slice(QUERIES, 7000))
    oracle = _oracle(inputs.shape[1:])
    data = ExtractionData(
        seeds=records.select(slice(0, 100)),
        pool=pool,
        test=held_out,
        reference=_oracle(pool.shape[1:]),
    )
    start = time.perf_counter()
    result = Knockoff(
        queries=QUERIES,
        curve_points=0,
        architecture=Perceptron(hidden=HIDDEN),
        training=SubstituteTraining(epochs=EPOCHS, batch=BATCH, learning_rate=RATE),
    ).run(oracle, data, np.random.default_rng(seed))
    seconds = time.perf_counter() - start
    ours = result.metrics["fidelity_test"]
    try:
        theirs, art_seconds, asked = _art_fidelity(pool, held_out, seed=seed)
    except AbilityError as error:
        return [estimated(name, source, reference=None, ours=ours, holds=None, reason=str(error))]
    reason = (
        f"fidelity to {NAME} on {len(held_out)} test images; same pool, architecture, epochs and "
        f"rate; ART's is {theirs}; records asked {result.spent.records} and {asked}; ART's "
        f"seconds over ours, training and judging, {art_seconds / seconds:.2f}"
    )
    holds = ours.high >= theirs.low
    return [estimated(name, source, reference=theirs.value, ours=ours, holds=holds, reason=reason)]


def _oracle(shape: tuple[int, ...]) -> Oracle:
    return TorchOracle(zoo.load(NAME), name=NAME, input_shape=shape, low=0.0, high=1.0)


def _art_fidelity(pool: Any, held_out: Records, *, seed: int) -> tuple[Estimate, float, int]:
    """Fidelity, seconds and records asked of ART's attack."""
    import torch

    oracle = _oracle(pool.shape[1:])
    with warnings.catch_warnings():
        # What ART warns about in its own code is not ours to mend.
        warnings.simplefilter("ignore")
        victim = as_art_classifier(oracle)
        from art.attacks.extraction import KnockoffNets
        from art.estimators.classification import PyTorchClassifier

        torch.manual_seed(seed)
        np.random.seed(seed)  # ART draws from numpy's global stream
        network = Perceptron(hidden=HIDDEN)(oracle.info)
        thief = PyTorchClassifier(
            network,
            loss=torch.nn.CrossEntropyLoss(),
            optimizer=torch.optim.Adam(network.parameters(), lr=RATE),
            input_shape=oracle.info.input_shape,
            nb_classes=oracle.info.classes,
            clip_values=(0.0, 1.0),
            device_type="cpu",
        )
        start = time.perf_counter()
        attack = KnockoffNets(
            victim,
            batch_size_fit=BATCH,
            batch_size_query=QUERIES,
            nb_epochs=EPOCHS,
            nb_stolen=QUERIES,
            sampling_strategy="random",
            use_probability=True,
            verbose=False,
        )
        stolen = attack.extract(pool.astype(np.float32), thieved_classifier=thief)
        labels = stolen.predict(held_out.inputs.astype(np.float32)).argmax(axis=1)
        seconds = time.perf_counter() - start
    asked = oracle.ledger.spent.records
    agree = int((labels == _oracle(pool.shape[1:]).query(held_out.inputs).labels).sum())
    return clopper_pearson(agree, len(held_out)), seconds, asked
