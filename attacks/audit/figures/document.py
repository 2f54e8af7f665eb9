"""audit.json: every figure with its interval, what it cost, and all that is needed to repeat it."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any, Final

import numpy as np

from attacks.audit.bench.cell import DONE, Cell
from attacks.audit.bench.state import CellName
from attacks.audit.figures.findings import Difference, Row
from attacks.audit.figures.pooling import is_significant, pool, pool_twins, pooled_to_json
from attacks.audit.sections.accuracy import ACCURACY
from attacks.core.entry import CatalogueEntry
from attacks.core.threat import ThreatModel

SCHEMA: Final = 1
PACKAGES: Final = ("numpy", "scipy", "scikit-learn", "torch", "tenseal", "joblib", "safetensors")

THREAT_MODELS: Final = (
    {
        "name": ThreatModel.MALICIOUS_CLIENT,
        "text": "Holds the secret key of its own queries, asks what it likes within the budget, "
        "and sees everything it decrypts. It wants the model, to know who it was trained on, or "
        "inputs that it gets wrong. Every attack is of this kind unless it says otherwise.",
    },
    {
        "name": ThreatModel.WEIGHT_HOLDER,
        "text": "Was given the network in the clear, or stole it exactly, and moves inputs along "
        "its gradients until it is wrong; the served form is asked once about each. Encryption "
        "hides queries, not what is done to them before.",
    },
    {
        "name": ThreatModel.CURIOUS_SERVER,
        "text": "Sees ciphertexts, evaluation keys, sizes and times. Encryption is there to stop "
        "it; the attacks on ciphertexts try to guess classes from all that it sees.",
    },
    {
        "name": ThreatModel.TRAINING_TIME_ADVERSARY,
        "text": "Controls some records of the training set. Encryption changes nothing here; where "
        "poisoning was audited, the poisoned targets show so on every twin.",
    },
)
GAME: Final = (
    "Membership: the challenger draws half of a pool at random, trains the target on it, and shows "
    "the attacker the pool, the recipe and the service. The attacker, who may train shadow models "
    "on draws of its own from the same pool, says for each record how likely it was a member "
    "(Salem et al. 2023, arXiv:2212.10986). Thresholds are set on shadow models, never on the "
    "target. Extraction: the attacker has some records of the same kind, labelled in part, and a "
    "budget of queries; what it stole is judged on test records and on uniform inputs, against "
    "the network in the clear. Evasion: the attacker moves test records by no more than epsilon in "
    "each value and has succeeded where a record that was labelled right no longer is; the true "
    "labels are known to it. All twins of a target have the same members, seed and recipe, and "
    "are asked the same questions; weights that came with the model are never mixed with these."
)


def rows_of(
    cells: Mapping[CellName, Cell],
    attacks: Mapping[str, CatalogueEntry],
    twins: Sequence[str],
    targets: Sequence[int],
    *,
    seed: int,
) -> tuple[Row, ...]:
    """One row per attack: cells pooled over targets, consecutive twins and the ends compared."""
    rows = []
    for number, (attack, entry) in enumerate(attacks.items()):
        rng = np.random.default_rng([seed, 5, number])
        by_twin = {
            twin: {
                target: cells[CellName(twin=twin, attack=attack, target=target)]
                for target in targets
            }
            for twin in twins
        }
        pooled, found = pool_twins(by_twin, compared_twins(twins), rng)
        rows.append(
            Row(
                name=attack,
                title=entry.title,
                family=entry.family,
                cells=pooled,
                differences=tuple(
                    Difference(before=before, after=after, metric=metric, value=value)
                    for (before, after), metrics in found.items()
                    for metric, value in metrics.items()
                ),
            )
        )
    return tuple(rows)


def accuracy_of(
    cells: Mapping[CellName, Cell], twins: Sequence[str], targets: Sequence[int]
) -> dict[str, Cell]:
    """Accuracy on test records and members, by twin, over all targets."""
    return {
        twin: pool([cells[CellName(twin=twin, attack=ACCURACY, target=t)] for t in targets])
        for twin in twins
    }


def compared_twins(twins: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Every twin with the next, and each with the last: the encrypted service."""
    pairs = [*itertools.pairwise(twins)]
    # The last twin evaluates the same network as the one two before it, under encryption.
    pairs += [(first, twins[-1]) for first in twins[:-2]]
    return tuple(pairs)


def row_to_json(row: Row, entry: CatalogueEntry, targets: Mapping[str, int]) -> dict[str, Any]:
    """A row of the document; ``targets``: how many are done, by twin."""
    done = [cell for cell in row.cells.values() if cell.status == DONE]
    return {
        **entry.to_json(row.name),
        "primary": done[0].primary if done else None,
        "higher_is_worse": True,
        "cells": {twin: pooled_to_json(cell, targets[twin]) for twin, cell in row.cells.items()},
        "paired": [
            {
                "from": difference.before,
                "to": difference.after,
                "metric": difference.metric,
                "difference": difference.value.to_json(),
                "significant": is_significant(difference.value),
            }
            for difference in row.differences
        ],
    }


def estimates(accuracy: Mapping[str, Cell], metric: str) -> dict[str, Any]:
    """A metric of every twin that has it."""
    return {
        twin: cell.metrics[metric].to_json()
        for twin, cell in accuracy.items()
        if metric in cell.metrics
    }


def versions() -> dict[str, str]:
    """Python and the packages that figures depend on."""
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
    }
