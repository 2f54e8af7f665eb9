"""Runs every attack on every twin of every target, one saved cell at a time."""

from __future__ import annotations

import traceback
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from attacks.audit.bench.cell import FAILED, REFUSED, Cell
from attacks.audit.bench.state import CellName, StateStore
from attacks.audit.bench.tally import Tally
from attacks.core.entry import Allowance, CatalogueEntry
from attacks.core.oracle import Oracle
from attacks.core.wrappers import Budget, Recorded
from attacks.errors import (
    AbilityError,
    AttackError,
    BudgetError,
    InterruptedOracleError,
    TooFewRecordsError,
)
from attacks.progress import Progress

# What says "this attack cannot work here", as opposed to "it should have".
REFUSALS = (AbilityError, BudgetError, TooFewRecordsError)


class Target(Protocol):
    """One trained model in the forms it is attacked in."""

    def oracle(self, twin: str) -> Oracle: ...

    def data(self, twin: str, family: str) -> Any:
        """ExtractionData or MembershipData for that twin."""
        ...

    def allowance(self, twin: str, budget: int) -> Allowance: ...


class Bench(Protocol):
    """Where targets come from; opening one may start a server."""

    @property
    def twins(self) -> Sequence[str]: ...

    @property
    def targets(self) -> Sequence[int]: ...

    def open(self, target: int) -> AbstractContextManager[Target]: ...


def run_cells(
    bench: Bench,
    attacks: Mapping[str, CatalogueEntry],
    store: StateStore,
    *,
    budgets: Mapping[str, int],
    seed: int,
    recorded: frozenset[str],
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
    prefix: str = "",
) -> dict[CellName, Cell]:
    """Every cell, from the store where it is finished.

    ``budgets``: records that each attack may ask. ``recorded``: twins whose answers are kept,
    in files whose names begin with ``prefix``.

    ``tell`` is given one line for each cell that fails. A failed cell is not saved: the next run
    tries it again. Raises InterruptedOracleError if a target dies; all that was finished and all
    answers that were paid for are kept.
    """
    cells: dict[CellName, Cell] = {}
    pending: dict[int, list[CellName]] = {}
    for target in bench.targets:
        for twin in bench.twins:
            for attack in attacks:
                name = CellName(twin=twin, attack=attack, target=target)
                saved = store.load(name)
                if saved is None:
                    pending.setdefault(target, []).append(name)
                else:
                    cells[name] = Cell.from_json(saved)
    total = len(cells) + sum(map(len, pending.values()))

    def advance() -> None:
        if progress is not None:
            progress("attack", len(cells), total)

    advance()
    for target, names in pending.items():
        with bench.open(target) as opened:
            for name in names:
                keep = (
                    store.answers / f"{prefix}{name.twin}.{target}"
                    if name.twin in recorded
                    else None
                )
                cell = run_cell(
                    opened,
                    name,
                    attacks[name.attack],
                    budget=budgets[name.attack],
                    seed=seed,
                    keep=keep,
                )
                if cell.status == FAILED:
                    if tell is not None:
                        tell(f"{name.attack} on {name.twin} of target {target}: {cell.reason}")
                else:
                    store.save(name, cell.to_json())
                cells[name] = cell
                advance()
    return cells


def run_cell(
    target: Target,
    name: CellName,
    entry: CatalogueEntry,
    *,
    budget: int,
    seed: int,
    keep: Path | None,
) -> Cell:
    """One attack on one oracle; ``keep``: where its answers are recorded, None for nowhere.

    The random stream depends on attack and target but not on the twin, so that every twin is
    asked the same questions.
    """
    rng = np.random.default_rng([seed, name.target, zlib.crc32(name.attack.encode())])
    try:
        with _recording(target.oracle(name.twin), keep) as oracle:
            if not oracle.info.answers & set(entry.needs):
                raise AbilityError(
                    f"it needs {entry.needs_text}, and {name.twin} answers "
                    f"{', '.join(sorted(oracle.info.answers))}"
                )
            attack = entry.build(target.allowance(name.twin, budget))
            tally = Tally(oracle)
            result = attack.run(
                Budget(tally, records=budget), target.data(name.twin, entry.family), rng
            )
            return Cell.of(result, _notes(tally))
    except InterruptedOracleError:
        raise
    except REFUSALS as error:
        return Cell(status=REFUSED, reason=str(error))
    except AttackError as error:
        return Cell(status=FAILED, reason=str(error))
    except (ArithmeticError, ValueError, RuntimeError, np.linalg.LinAlgError) as error:
        # A defect in one attack must not cost the figures of the others; it stays visible.
        place = traceback.extract_tb(error.__traceback__)[-1]
        return Cell(
            status=FAILED,
            reason=f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {error}",
        )


class _recording(AbstractContextManager[Oracle]):
    """The oracle with its answers kept in a file while the block runs; as it is for None."""

    def __init__(self, oracle: Oracle, path: Path | None) -> None:
        self._recorded = None if path is None else Recorded(oracle, path)
        self._oracle = oracle

    def __enter__(self) -> Oracle:
        return self._oracle if self._recorded is None else self._recorded

    def __exit__(self, *_: object) -> None:
        if self._recorded is not None:
            self._recorded.close()


def _notes(tally: Tally) -> tuple[str, ...]:
    if not tally.reused:
        return ()
    return (
        f"{tally.reused} of these records were asked by an attack before, so bytes and seconds "
        "leave them out",
    )
