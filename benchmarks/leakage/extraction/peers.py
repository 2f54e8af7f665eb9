"""The same knockoff attack by us and by ART: one oracle, one pool, one budget, one architecture."""

from __future__ import annotations

import warnings
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attacks.core.intervals import Estimate, clopper_pearson
from attacks.core.records import Records
from attacks.errors import AbilityError
from attacks.extraction.knockoff import Knockoff
from attacks.extraction.setting import ExtractionData
from attacks.extraction.substitute import Perceptron, SubstituteTraining
from attacks.oracles.art import as_art_classifier
from benchmarks.leakage.setting import shuffled, zoo_oracle, zoo_records
from benchmarks.record import timed
from benchmarks.rows import Row

NAME: Final = "tutorial-cnn"
QUERIES: Final = 2000
EPOCHS: Final = 20
BATCH: Final = 64
RATE: Final = 1e-3
HIDDEN: Final = (128,)


def rows(*, seed: int = 0) -> list[Row]:
    """One row: our fidelity against ART's on the same test images, and the ratio of times."""
    name = f"knockoff nets beside ART, {QUERIES} queries"
    source = "ART, KnockoffNets, random strategy"
    records = shuffled(zoo_records(NAME), seed)
    pool, held_out = records.inputs[:QUERIES], records.select(slice(QUERIES, 7000))
    data = ExtractionData(
        seeds=records.select(slice(0, 100)),
        pool=pool,
        test=held_out,
        reference=zoo_oracle(NAME),
    )
    attack = Knockoff(
        queries=QUERIES,
        curve_points=0,
        architecture=Perceptron(hidden=HIDDEN),
        training=SubstituteTraining(epochs=EPOCHS, batch=BATCH, learning_rate=RATE),
    )
    rng, oracle = np.random.default_rng(seed), zoo_oracle(NAME)
    result, our_ms = timed(lambda: attack.run(oracle, data, rng))
    ours = result.metrics["fidelity_test"]
    try:
        theirs, art_ms, asked = _art_fidelity(pool, held_out, seed=seed)
    except AbilityError as error:
        return [Row(name, source, ours=ours, reason=str(error))]
    reason = (
        f"fidelity to {NAME} on {len(held_out)} test images; same pool, architecture, epochs and "
        f"rate; ART's is {theirs}; records asked {result.spent.records} and {asked}; ART's "
        f"seconds over ours, training and judging, {art_ms / our_ms:.2f}"
    )
    holds = ours.high >= theirs.low
    return [Row(name, source, reference=theirs.value, ours=ours, holds=holds, reason=reason)]


def _art_fidelity(pool: Any, held_out: Records, *, seed: int) -> tuple[Estimate, float, int]:
    """Fidelity, milliseconds and records asked of ART's attack."""
    import torch

    oracle = zoo_oracle(NAME)
    with warnings.catch_warnings():
        # What ART warns about in its own code is not ours to mend.
        warnings.simplefilter("ignore")
        victim = as_art_classifier(oracle)
        from art.attacks.extraction import KnockoffNets
        from art.estimators.classification import PyTorchClassifier

        torch.manual_seed(seed)
        np.random.seed(seed)  # ART draws from numpy's global stream
        network = Perceptron(hidden=HIDDEN)(oracle.info)
        copy = PyTorchClassifier(
            network,
            loss=torch.nn.CrossEntropyLoss(),
            optimizer=torch.optim.Adam(network.parameters(), lr=RATE),
            input_shape=oracle.info.input_shape,
            nb_classes=oracle.info.classes,
            clip_values=(0.0, 1.0),
            device_type="cpu",
        )
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

        def extract_and_predict() -> NDArray[np.int64]:
            stolen = attack.extract(pool.astype(np.float32), thieved_classifier=copy)
            predicted = stolen.predict(held_out.inputs.astype(np.float32))
            return np.asarray(predicted.argmax(axis=1))

        labels, ms = timed(extract_and_predict)
    asked = oracle.ledger.spent.records
    agree = int((labels == zoo_oracle(NAME).query(held_out.inputs).labels).sum())
    return clopper_pearson(agree, len(held_out)), ms, asked
