"""Trials: each attack on each twin of each target, refused or failed in words, never lost."""

from __future__ import annotations

import dataclasses
import importlib.util
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from attacks.audit.bench.state import StateStore, TrialName
from attacks.audit.bench.trial import Trial
from attacks.audit.bench.trials import TrialRunner
from attacks.audit.document.codec import from_json, to_json
from attacks.audit.document.records import DONE, FAILED, REFUSED
from attacks.core.entry import Allowance, CatalogueEntry
from attacks.core.oracle import LABELS, LOGITS
from attacks.errors import BadAnswerError, BudgetError, InterruptedOracleError

HERE = Path(__file__).parent


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fake_bench", HERE / "fake_bench.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


fake = _load()


def run(
    folder: Path, attacks: dict[str, CatalogueEntry], *, bench: object = None, budget: int = 100
) -> dict[TrialName, Trial]:
    runner = TrialRunner(store=StateStore(folder, "k" * 64, description={}), seed=7)
    return runner.run(
        bench or fake.FakeBench(),  # type: ignore[arg-type]
        attacks,
        budgets=dict.fromkeys(attacks, budget),
        recorded=frozenset({fake.SERVED}),
    )


def named(twin: str, attack: str, target: int) -> TrialName:
    return TrialName(twin=twin, attack=attack, target=target)


def test_every_twin_is_asked_the_same_questions(tmp_path: Path) -> None:
    cells = run(tmp_path, {"a": fake.asking(), "b": fake.asking()})
    assert len(cells) == 2 * 2 * 2 and {cell.status for cell in cells.values()} == {DONE}
    for attack in ("a", "b"):
        for target in (0, 2):
            clear = cells[named(fake.CLEAR, attack, target)]
            served = cells[named(fake.SERVED, attack, target)]
            assert clear.metrics == served.metrics
    shares = {str(cell.metrics["share"]) for cell in cells.values()}
    assert len(shares) > 1  # but attacks and targets draw their own


def test_finished_cells_are_not_run_again(tmp_path: Path) -> None:
    ran: list[str] = []
    first = run(tmp_path, {"a": fake.asking(before=ran.append)})
    assert len(ran) == 4
    bench = fake.FakeBench()
    second = run(tmp_path, {"a": fake.asking(before=ran.append)}, bench=bench)
    assert len(ran) == 4 and bench.opened == []
    assert to_json(list(first.values())) == to_json(list(second.values()))
    run(tmp_path, {"a": fake.asking(before=ran.append), "b": fake.asking(before=ran.append)})
    assert len(ran) == 8


def test_refusals_say_why_and_are_kept(tmp_path: Path) -> None:
    def build(allowance: Allowance) -> object:
        raise BudgetError("it needs at least 500 queries")

    small = dataclasses.replace(fake.asking(), build=build)
    cells = run(tmp_path, {"poor": small, "greedy": fake.asking(101)}, budget=100)
    poor, greedy = (cells[named(fake.SERVED, name, 0)] for name in ("poor", "greedy"))
    assert (poor.status, poor.reason) == (REFUSED, "it needs at least 500 queries")
    assert greedy.status == REFUSED and "at least 101 are needed" in str(greedy.reason)
    again = run(tmp_path, {"poor": small})
    assert again[named(fake.SERVED, "poor", 0)].reason == poor.reason


def test_an_oracle_that_answers_too_little_is_named(tmp_path: Path) -> None:
    bench = fake.FakeBench(answers=frozenset({LABELS}))
    cells = run(tmp_path, {"a": fake.asking(needs=(LOGITS, "probabilities"))}, bench=bench)
    cell = cells[named(fake.CLEAR, "a", 0)]
    assert cell.status == REFUSED
    assert cell.reason == "it needs logits or probabilities, and clear answers labels"
    assert all(oracle.ledger.spent.records == 0 for oracle in bench.made)


@pytest.mark.parametrize(
    "error", [BadAnswerError("3 answers are not finite"), np.linalg.LinAlgError("singular")]
)
def test_failures_cost_no_other_cell_and_are_tried_again(tmp_path: Path, error: Exception) -> None:
    broken = True

    def break_down(twin: str) -> None:
        if broken and twin == fake.CLEAR:
            raise error

    told: list[str] = []
    attacks = {"bad": fake.asking(before=break_down), "good": fake.asking()}
    store = StateStore(tmp_path, "k" * 64, description={})

    def everything() -> dict[TrialName, Trial]:
        runner = TrialRunner(store=store, seed=0, tell=told.append)
        return runner.run(fake.FakeBench(), attacks, budgets=dict.fromkeys(attacks, 100))

    cells = everything()
    failed = cells[named(fake.CLEAR, "bad", 0)]
    assert failed.status == FAILED and str(error) in str(failed.reason)
    assert len(told) == 2 and "bad on clear of target 0" in told[0]
    assert cells[named(fake.SERVED, "bad", 0)].status == DONE
    assert cells[named(fake.CLEAR, "good", 2)].status == DONE
    broken = False
    assert {cell.status for cell in everything().values()} == {DONE}


def test_what_a_dying_service_answered_is_not_paid_again(tmp_path: Path) -> None:
    dying = fake.FakeBench(lives=2)
    with pytest.raises(InterruptedOracleError) as caught:
        run(tmp_path, {"a": fake.asking(12)}, bench=dying)  # three requests of four
    assert caught.value.answered == 8
    alive = fake.FakeBench()
    cells = run(tmp_path, {"a": fake.asking(12)}, bench=alive)
    assert {cell.status for cell in cells.values()} == {DONE}
    paid = [o.ledger.spent.records for o in alive.made if o.info.name == fake.SERVED]
    assert sum(paid) == 4 + 12  # the rest of target 0, all of target 2
    resumed = cells[named(fake.SERVED, "a", 0)]
    assert resumed.spent.records == 12  # the attack asked all of them
    assert any("8 of these records were asked" in note for note in resumed.notes)
    whole = run(tmp_path / "whole", {"a": fake.asking(12)})
    assert whole[named(fake.SERVED, "a", 0)].metrics == resumed.metrics


def test_cells_survive_being_saved() -> None:
    cell = Trial(status=REFUSED, reason="why", notes=("a", "b"))
    assert to_json(from_json(Trial, to_json(cell))) == to_json(cell)


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "fake_bench.py"), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.parametrize(
    "end", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_an_interrupted_audit_goes_on_where_it_was(tmp_path: Path, end: signal.Signals) -> None:
    (tmp_path / "hold").touch()
    with start(tmp_path) as child:
        try:
            deadline = time.monotonic() + 300
            while not (tmp_path / "waiting").exists():
                assert time.monotonic() < deadline and child.poll() is None
                time.sleep(0.02)
            child.send_signal(end)
            assert child.wait(120) != 0
        finally:
            child.kill()
    assert (tmp_path / "log").read_text().split() == [fake.CLEAR, fake.SERVED]
    (tmp_path / "hold").unlink()
    with start(tmp_path) as again:
        output, _ = again.communicate(timeout=300)
    assert again.returncode == 0 and output.split() == ["8", "8"]
    # Only what was not finished ran: the interrupted cell, and the second target.
    assert (tmp_path / "log").read_text().split()[2:] == [fake.SERVED, fake.CLEAR, fake.SERVED]
