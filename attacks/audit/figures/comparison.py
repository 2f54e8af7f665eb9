"""One attack on every twin: pooled over the targets, and compared between the twins."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from attacks.audit.bench.state import TrialName
from attacks.audit.bench.trial import Trial
from attacks.audit.bench.trials import Bench
from attacks.audit.document.records import DONE, AttackRecord, PairedDifference, is_significant
from attacks.audit.figures.pooling import pool_twins
from attacks.core.entry import CatalogueEntry


def compare_twins(
    name: str,
    entry: CatalogueEntry,
    trials: Mapping[TrialName, Trial],
    bench: Bench,
    rng: np.random.Generator,
) -> AttackRecord:
    """The record of the attack ``name``, made from its trials on all of ``bench``."""
    by_twin = {
        twin: {
            target: trials[TrialName(twin=twin, attack=name, target=target)]
            for target in bench.targets
        }
        for twin in bench.twins
    }
    pooled, found = pool_twins(by_twin, compared_twins(bench.twins), rng)
    done = (t for own in by_twin.values() for t in own.values() if t.status == DONE)
    return AttackRecord(
        **entry.to_json(name),
        primary=next((trial.primary for trial in done), None),
        cells=pooled,
        paired=tuple(
            PairedDifference(
                before=before,
                after=after,
                metric=metric,
                difference=difference,
                significant=is_significant(difference),
            )
            for (before, after), metrics in found.items()
            for metric, difference in metrics.items()
        ),
    )


def compared_twins(twins: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Every twin with the next, and each with the last: the encrypted service."""
    pairs = [*itertools.pairwise(twins)]
    # The last twin evaluates the same network as the one two before it, under encryption.
    pairs += [(first, twins[-1]) for first in twins[:-2]]
    return tuple(pairs)
