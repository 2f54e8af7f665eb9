"""Extraction of the model with the weights it came with, beside the retrained targets.

Its training records are not known here, so it is no target of membership attacks and in no
average; but its weights are what the owner wants to keep.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from torch import nn

from attacks.audit.bench.bench import CALIBRATION, stealing_data
from attacks.audit.bench.cell import REFUSED, Cell
from attacks.audit.bench.cells import run_cells
from attacks.audit.bench.data import Split
from attacks.audit.bench.models import Subject
from attacks.audit.bench.state import StateStore
from attacks.audit.config import AuditConfig
from attacks.audit.figures.document import rows_of
from attacks.audit.figures.findings import Row
from attacks.core.entry import Allowance, CatalogueEntry
from attacks.core.oracle import Oracle
from attacks.extraction.setting import ExtractionData
from attacks.oracles.twins import ENCRYPTED, POLYNOMIAL, RELU, SIMULATED, Twins
from attacks.progress import Progress

DELIVERED: Final = "as delivered"
SUFFIX: Final = "-delivered"
# Attacks on weights themselves: what others steal, retrained targets show.
EXACT: Final = ("quadratic-extraction", "line-extraction")
NO_TWIN: Final = (
    "the delivered weights are those of one network; its ReLU original, if there was one, is not "
    "at hand"
)


class DeliveredBench:
    """One target, number 0: the network as it was delivered, in the clear and served."""

    twins: Sequence[str] = (POLYNOMIAL, SIMULATED, ENCRYPTED)
    targets: Sequence[int] = (0,)

    def __init__(self, model: nn.Module, split: Split, config: AuditConfig) -> None:
        self._model = model
        self._split = split
        self._config = config

    @contextmanager
    def open(self, target: int) -> Iterator[DeliveredTarget]:
        with Twins(
            relu=self._model,
            polynomial=self._model,
            sample=self._split.pool.inputs[:CALIBRATION],
            records=self._config.packed_for,
            low=self._split.low,
            high=self._split.high,
            seed=self._config.seed + target,
        ) as twins:
            yield DeliveredTarget(twins, self._split, seed=self._config.seed)


class DeliveredTarget:
    """Fresh oracles, and what an attacker starts from."""

    def __init__(self, twins: Twins, split: Split, *, seed: int) -> None:
        self._twins = twins
        self._split = split
        self._seed = seed
        self._data: ExtractionData | None = None

    def oracle(self, twin: str) -> Oracle:
        return self._twins.oracle(twin)

    def allowance(self, twin: str, budget: int) -> Allowance:
        return Allowance(
            budget=budget,
            info=self._twins.oracle(twin).info,
            candidates=len(self._split.pool),
            population=len(self._split.population),
        )

    def data(self, twin: str, family: str) -> Any:
        del twin, family  # one network, one family
        if self._data is None:
            self._data = stealing_data(self._twins.oracle(POLYNOMIAL), self._split, seed=self._seed)
        return self._data


def delivered_rows(
    subject: Subject,
    chosen: Mapping[str, CatalogueEntry],
    store: StateStore,
    config: AuditConfig,
    *,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[tuple[Row, CatalogueEntry]]:
    """A row for each exact attack that was chosen; none if the model came without weights."""
    attacks = {
        f"{name}{SUFFIX}": dataclasses.replace(entry, title=f"{entry.title}, {DELIVERED}")
        for name, entry in chosen.items()
        if name in EXACT
    }
    if subject.delivered is None or not attacks:
        return []
    bench = DeliveredBench(subject.delivered, subject.split, config)
    cells = run_cells(
        bench,
        attacks,
        store,
        budgets=dict.fromkeys(attacks, config.budget),
        seed=config.seed,
        recorded=frozenset({ENCRYPTED}),
        progress=_renamed(progress),
        tell=tell,
        prefix="delivered-",
    )
    rows = rows_of(cells, attacks, bench.twins, bench.targets, seed=config.seed)
    missing = {RELU: Cell(status=REFUSED, reason=NO_TWIN)}
    return [
        (dataclasses.replace(row, cells={**missing, **row.cells}), attacks[row.name])
        for row in rows
    ]


def _renamed(progress: Progress | None) -> Progress | None:
    if progress is None:
        return None

    def report(stage: str, done: int, total: int) -> None:
        progress(f"{stage} {DELIVERED}", done, total)

    return report
