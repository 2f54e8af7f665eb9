"""Runs every attack on every twin of every target, and saves one trial at a time."""

from __future__ import annotations

import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from attacks.audit.bench.counted import CountedOracle
from attacks.audit.bench.state import StateStore, TrialName
from attacks.audit.bench.trial import Trial
from attacks.audit.document.codec import from_json, to_json
from attacks.audit.document.records import FAILED, REFUSED
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


def silent(stage: str, done: int, total: int) -> None:
    """A Progress that nobody watches."""


def unheard(line: str) -> None:
    """What takes the place of a ``tell`` that was not given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRunner:
    """Runs trials and saves them in ``store``; ``tell`` is given one line for each that fails."""

    store: StateStore
    seed: int
    progress: Progress = silent
    tell: Callable[[str], None] = unheard

    def run(
        self,
        bench: Bench,
        attacks: Mapping[str, CatalogueEntry],
        *,
        budgets: Mapping[str, int],
        recorded: frozenset[str] = frozenset(),
        prefix: str = "",
        about: str = "",
    ) -> dict[TrialName, Trial]:
        """Every trial of ``attacks`` on ``bench``, taken from the store where it is finished.

        ``budgets``: records that each attack may ask. ``recorded``: twins whose answers are kept,
        in files whose names begin with ``prefix``. ``about``: what progress is told to be about.

        A failed trial is not saved: the next run tries it again. Raises InterruptedOracleError if
        a target dies; finished trials and all answers that were paid for are kept.
        """
        trials: dict[TrialName, Trial] = {}
        pending: dict[int, list[TrialName]] = {}
        for target in bench.targets:
            for twin in bench.twins:
                for attack in attacks:
                    name = TrialName(twin=twin, attack=attack, target=target)
                    saved = self.store.load(name)
                    if saved is None:
                        pending.setdefault(target, []).append(name)
                    else:
                        trials[name] = from_json(Trial, saved, str(name))
        total = len(trials) + sum(map(len, pending.values()))
        self.progress(f"attack{about}", len(trials), total)
        for target, names in pending.items():
            with bench.open(target) as opened:
                for name in names:
                    kept = self.store.answers / f"{prefix}{name.twin}.{target}"
                    trials[name] = trial = run_trial(
                        opened,
                        name,
                        attacks[name.attack],
                        budget=budgets[name.attack],
                        seed=self.seed,
                        keep=kept if name.twin in recorded else None,
                    )
                    if trial.status == FAILED:
                        where = f"{name.attack} on {name.twin} of target {target}"
                        self.tell(f"{where}: {trial.reason}")
                    else:
                        self.store.save(name, to_json(trial))
                    self.progress(f"attack{about}", len(trials), total)
        return trials


def run_trial(
    target: Target,
    name: TrialName,
    entry: CatalogueEntry,
    *,
    budget: int,
    seed: int,
    keep: Path | None,
) -> Trial:
    """One attack on one oracle; ``keep``: where its answers are recorded, if they are.

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
            counted = CountedOracle(oracle)
            result = attack.run(
                Budget(counted, records=budget), target.data(name.twin, entry.family), rng
            )
            return Trial.of(result, _notes(counted))
    except InterruptedOracleError:
        raise
    except REFUSALS as error:
        return Trial(status=REFUSED, reason=str(error))
    except AttackError as error:
        return Trial(status=FAILED, reason=str(error))
    except (ArithmeticError, ValueError, RuntimeError, np.linalg.LinAlgError) as error:
        # A defect in one attack must not cost the figures of the others; it stays visible.
        place = traceback.extract_tb(error.__traceback__)[-1]
        return Trial(
            status=FAILED,
            reason=f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {error}",
        )


@contextmanager
def _recording(oracle: Oracle, path: Path | None) -> Iterator[Oracle]:
    """The oracle, whose answers are kept in the file ``path``, if there is one."""
    if path is None:
        yield oracle
        return
    with closing(Recorded(oracle, path)) as recorded:
        yield recorded


def _notes(counted: CountedOracle) -> tuple[str, ...]:
    if not counted.reused:
        return ()
    return (
        f"{counted.reused} of these records were asked by an attack before, so bytes and seconds "
        "leave them out",
    )
