"""Evasion in an audit: who gets what, and what the figures and the checks mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from attacks.audit.bench.data import Split, load_records, split_records
from attacks.audit.bench.models import read_subject
from attacks.audit.bench.state import StateStore, TrialName
from attacks.audit.bench.trained import EPSILON_SHARE, TrainedBench, epsilon_for
from attacks.audit.bench.trial import Trial
from attacks.audit.bench.trials import TrialRunner
from attacks.audit.config import AuditConfig, config_of
from attacks.audit.document.records import (
    DONE,
    FAILED,
    AttackRecord,
    EvasionRecord,
    Finding,
    PooledTrial,
    SanityCheckRecord,
)
from attacks.audit.section import AuditSetting
from attacks.audit.sections.evasion import CHECKS, SECTION, check_records, evasion_trials
from attacks.catalogue import ATTACKS, choose
from attacks.core.entry import EVASION, Allowance
from attacks.core.intervals import Estimate, exact
from attacks.core.oracle import LABELS, LOGITS, OracleInfo, Spent
from attacks.errors import AuditError, BudgetError, DataSplitError
from attacks.evasion.checks import TITLES
from attacks.evasion.outcome import OVERHEAD
from attacks.oracles.twins import ENCRYPTED, POLYNOMIAL, RELU, TWINS
from tests.attacks.audit.records import EMPTY, attack, record

LEAST = {"model": "digits-mlp", "data": "digits", "out": "audit"}
INFO = OracleInfo(
    name="target",
    kind="plaintext",
    input_shape=(8,),
    classes=3,
    low=0.0,
    high=1.0,
    answers=frozenset({LOGITS, LABELS}),
)


def estimate(low: float, high: float) -> Estimate:
    return Estimate(value=(low + high) / 2, low=low, high=high, method="test", count=2)


def fooled(low: float, high: float, noise: float = 0.02) -> PooledTrial:
    return PooledTrial(
        status=DONE,
        metrics={"success": estimate(low, high)},
        baseline={"success": estimate(0.0, noise)},
        spent=Spent(records=5000, requests=90),
    )


def row(name: str, cells: Mapping[str, PooledTrial]) -> AttackRecord:
    threat_model = ATTACKS[name].threat_model
    return attack(name, EVASION, cells, primary="success", threat_model=threat_model)


def findings(
    attacks: Sequence[AttackRecord], checks: Sequence[SanityCheckRecord] = ()
) -> list[Finding]:
    evasion = EvasionRecord(epsilon=0.1, checks=tuple(checks))
    return list(SECTION.findings(record(attacks=tuple(attacks), evasion=evasion)))


def checked(*, fails: str = "", note: str = "half of them") -> Trial:
    return Trial(
        status=DONE,
        primary="checks_held",
        metrics={name: exact(float(name != fails), count=1) for name in TITLES},
        notes=(f"{fails}: {note}",) if fails else (),
    )


def only(found: list[Finding], words: str) -> Finding:
    (finding,) = [each for each in found if words in each.title]
    return finding


@pytest.mark.parametrize(
    ("cell", "words", "severity"),
    [
        (fooled(0.5, 0.7), "can craft inputs", "high"),
        (fooled(0.4, 0.7), "can craft some inputs", "medium"),
        (fooled(0.6, 0.7, noise=0.65), "more than random changes", "ok"),
        (fooled(0.01, 0.1), "more than random changes", "ok"),
    ],
)
def test_what_a_client_reaches_decides(cell: PooledTrial, words: str, severity: str) -> None:
    rows = [row("square", {ENCRYPTED: cell}), row("pgd", {ENCRYPTED: fooled(0.9, 1.0)})]
    finding = only(findings(rows), words)
    assert finding.severity == severity
    # Who holds the weights is named beside it and does not decide.
    assert "holds the weights fools 95.0%" in finding.text and "5,000 records" in finding.text


def test_the_three_networks_stand_side_by_side() -> None:
    cells = {
        RELU: fooled(0.2, 0.4),
        POLYNOMIAL: fooled(0.4, 0.6),
        ENCRYPTED: fooled(0.45, 0.55),
    }
    missing = {**cells, RELU: PooledTrial(status=FAILED, reason="it broke")}
    found = findings([row("pgd", cells), row("square", missing)])
    text = only(found, "How easily each network").text
    assert "pgd (PGD) 30% / 50% / 50%" in text and "square" not in text


def test_checks_are_counted_by_twin_and_a_failed_one_is_a_finding() -> None:
    cells = {
        TrialName(twin=twin, attack=CHECKS, target=target): cell
        for (twin, target), cell in {
            (RELU, 0): checked(),
            (RELU, 2): checked(fails="gradients_present"),
            (ENCRYPTED, 0): checked(),
            (ENCRYPTED, 2): Trial(status=FAILED, reason="it broke"),
        }.items()
    }
    rows = check_records(cells, (RELU, ENCRYPTED), (0, 2))
    assert [each.name for each in rows] == list(TITLES)
    (flat,) = [each for each in rows if each.name == "gradients_present"]
    assert flat.tried == {RELU: 2, ENCRYPTED: 1} and flat.held == {RELU: 1, ENCRYPTED: 1}
    assert flat.notes == (f"{RELU}: half of them",)
    finding = only(findings([], rows), "gradient is masked")
    assert finding.severity == "medium" and "fails on 1 of 3" in finding.text
    cells[TrialName(twin=RELU, attack=CHECKS, target=2)] = checked(fails="more_steps")
    rows = check_records(cells, (RELU, ENCRYPTED), (0, 2))
    assert only(findings([], rows), "A sanity check").severity == "medium"
    cells[TrialName(twin=RELU, attack=CHECKS, target=2)] = checked()
    rows = check_records(cells, (RELU, ENCRYPTED), (0, 2))
    assert only(findings([], rows), "checks of evasion hold").severity == "ok"


def test_without_evasion_there_is_nothing_to_say() -> None:
    assert check_records({}, (RELU,), (0,)) == ()
    assert findings([]) == [] and list(SECTION.findings(record())) == []


@pytest.mark.parametrize("name", choose((EVASION,)))
def test_no_attack_may_ask_more_than_its_budget(name: str) -> None:
    moved, budget = 20, 4000
    attack = ATTACKS[name].build(
        Allowance(budget=budget, info=INFO, candidates=0, population=200, moved=moved)
    )
    asked = getattr(attack, "queries", 0) * moved
    stolen = getattr(getattr(attack, "extraction", None), "queries", 0)
    assert asked + stolen + OVERHEAD * moved <= budget


def test_a_budget_that_judging_eats_up_is_refused() -> None:
    small = Allowance(budget=60, info=INFO, candidates=0, population=200, moved=20)
    with pytest.raises(BudgetError, match="above 60"):
        ATTACKS["transfer"].build(small)


def _split() -> Split:
    return split_records(*load_records("digits"), pool=200, rng=np.random.default_rng(0))


def test_epsilon_is_a_share_of_the_interval_unless_it_is_given() -> None:
    split = _split()
    assert epsilon_for(config_of(LEAST), split) == EPSILON_SHARE * 1.0
    assert epsilon_for(config_of({**LEAST, "epsilon": 0.3}), split) == 0.3
    with pytest.raises(DataSplitError, match=r"give a smaller one, or 0 for 0\.1"):
        epsilon_for(config_of({**LEAST, "epsilon": 1.5}), split)


def test_settings_of_evasion_are_checked_and_are_part_of_the_key() -> None:
    config = config_of({**LEAST, "epsilon": 0, "evasion_records": 10, "evasion_queries": 30})
    assert isinstance(config, AuditConfig) and config.evasion_budget == 300
    assert config.key({}) != config_of({**LEAST, "evasion_records": 10}).key({})
    for setting in ({"epsilon": -0.1}, {"evasion_records": 0}, {"evasion_queries": 2}):
        with pytest.raises(AuditError, match="must lie between"):
            config_of({**LEAST, **setting})


@pytest.mark.slow
def test_all_twins_are_moved_alike_and_no_answer_is_kept(tmp_path: Path) -> None:
    """With a real server; training takes seconds."""
    config = config_of(
        {
            **LEAST,
            "out": str(tmp_path),
            "budget": 256,
            "targets": 1,
            "shadows": 2,
            "epochs": 15,
            "fine_tune_epochs": 10,
            "evasion_records": 16,
            "evasion_queries": 20,
        }
    )
    split = split_records(
        *load_records(config.data), pool=0, rng=np.random.default_rng(config.seed)
    )
    subject = read_subject(config, split)
    bench = TrainedBench(subject, config)
    store = StateStore(tmp_path, "k" * 64, description={})
    chosen = {name: ATTACKS[name] for name in ("knockoff", "pgd", "square")}
    runner = TrialRunner(store=store, seed=config.seed)
    setting = AuditSetting(
        config=config, chosen=chosen, subject=subject, bench=bench, runner=runner
    )
    cells = evasion_trials(setting, setting.of_family(EVASION))
    assert {name.attack for name in cells} == {"pgd", "square", CHECKS}
    assert all(cell.status == DONE for cell in cells.values())
    for name in ("pgd", "square"):
        clear, served = (
            cells[TrialName(twin=twin, attack=name, target=0)].metrics["success"]
            for twin in (POLYNOMIAL, ENCRYPTED)
        )
        assert served.low <= clear.value <= served.high
    spent = cells[TrialName(twin=ENCRYPTED, attack="square", target=0)].spent
    assert spent.records <= config.evasion_budget and spent.bytes_sent > 0
    rows = check_records(cells, TWINS, bench.targets)
    assert all(each.tried == dict.fromkeys(TWINS, 1) for each in rows)
    assert not list(tmp_path.rglob("answers/*"))
    filled = SECTION.run(setting, record())
    assert [each.name for each in filled.attacks] == ["pgd", "square"]
    assert filled.evasion is not None and filled.evasion.checks == rows
    idle = dataclasses.replace(setting, chosen={})
    assert SECTION.run(idle, EMPTY) is EMPTY
