"""A bench with targets made of one matrix, attacks that count, and a child that is interrupted.

Run as a program it is the child: it stops inside the attack "slow" until it is told to end.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attacks.audit.bench.state import StateStore
from attacks.audit.bench.trials import TrialRunner
from attacks.core.entry import EXTRACTION, Allowance, CatalogueEntry
from attacks.core.intervals import clopper_pearson
from attacks.core.oracle import LABELS, LOGITS, Answer, MeteredOracle, Oracle, OracleInfo
from attacks.core.result import AttackResult
from attacks.core.threat import ThreatModel
from attacks.errors import InterruptedOracleError

CLEAR, SERVED = "clear", "served"


class Matrix(MeteredOracle):
    """Logits are records × matrix; dies after ``lives`` requests."""

    def __init__(self, name: str, answers: frozenset[str], lives: int | None) -> None:
        info = OracleInfo(
            name=name,
            kind="plaintext",
            input_shape=(2,),
            classes=2,
            low=0.0,
            high=1.0,
            answers=answers,
            batch=4,
        )
        super().__init__(info)
        self._lives = lives

    def _answer(self, records: NDArray[np.float64]) -> Answer:
        if self._lives is not None:
            self._lives -= 1
            if self._lives < 0:
                raise InterruptedOracleError("the service went away", answered=0)
        answer = Answer.of_logits(records)
        return answer if LOGITS in self.info.answers else Answer(labels=answer.labels)


class FakeTarget:
    def __init__(self, bench: FakeBench) -> None:
        self._bench = bench

    def oracle(self, twin: str) -> Oracle:
        lives = self._bench.lives if twin == SERVED else None
        oracle = Matrix(twin, self._bench.answers, lives)
        self._bench.made.append(oracle)
        return oracle

    def data(self, twin: str, family: str) -> Any:
        return (twin, family)

    def allowance(self, twin: str, budget: int) -> Allowance:
        return Allowance(budget=budget, info=self.oracle(twin).info, candidates=4, population=4)


class FakeBench:
    """Two targets in two twins; counts how often one is opened."""

    twins: Sequence[str] = (CLEAR, SERVED)
    targets: Sequence[int] = (0, 2)

    def __init__(
        self, *, lives: int | None = None, answers: frozenset[str] = frozenset({LOGITS, LABELS})
    ) -> None:
        self.lives = lives
        self.answers = answers
        self.opened: list[int] = []
        self.made: list[Matrix] = []

    @contextmanager
    def open(self, target: int) -> Iterator[FakeTarget]:
        self.opened.append(target)
        yield FakeTarget(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Asks ``records`` random records; ``before`` runs first, with the twin's name."""

    records: int
    before: Callable[[str], None]

    def run(self, oracle: Oracle, data: Any, rng: np.random.Generator) -> AttackResult:
        self.before(data[0])
        spent = oracle.ledger.spent
        drawn = rng.uniform(size=(self.records, 2))
        right = int(oracle.query(drawn).labels.sum())
        return AttackResult(
            attack="asking",
            oracle=oracle.info.name,
            threat_model=ThreatModel("malicious client"),
            primary="share",
            metrics={"share": clopper_pearson(right, self.records)},
            spent=oracle.ledger.spent - spent,
            seconds=0.0,
        )


def nothing(twin: str) -> None:
    del twin


def asking(
    records: int = 8,
    *,
    before: Callable[[str], None] = nothing,
    needs: tuple[str, ...] = (LABELS,),
) -> CatalogueEntry:
    return CatalogueEntry(
        title="Asking",
        family=EXTRACTION,
        reference="none",
        needs=needs,
        build=lambda allowance: Asking(records=records, before=before),
    )


def child(folder: Path) -> None:
    """Run two attacks on everything; "slow" says where it is and waits while ``hold`` exists."""

    def wait(twin: str) -> None:
        with (folder / "log").open("a", encoding="utf-8") as log:
            log.write(f"{twin}\n")
        if twin == SERVED and (folder / "hold").exists():
            (folder / "waiting").touch()
            time.sleep(3600)

    store = StateStore(folder, "k" * 64, description={})
    attacks = {"quick": asking(), "slow": asking(before=wait)}
    budgets = dict.fromkeys(attacks, 100)
    runner = TrialRunner(store=store, seed=0)
    cells = runner.run(FakeBench(), attacks, budgets=budgets, recorded=frozenset({SERVED}))
    print(len(cells), store.finished())


if __name__ == "__main__":
    # A shell's background jobs ignore SIGINT, and so would their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    child(Path(sys.argv[1]))
