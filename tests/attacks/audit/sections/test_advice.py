"""Remedies ranked by what they remove for what they cost, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from attacks.audit.bench.state import TrialName
from attacks.audit.bench.trial import Trial
from attacks.audit.document.records import DONE, REFUSED, Finding, RemedyRecord
from attacks.audit.sections.advice import METRIC, SECTION, remedies
from attacks.audit.sections.remedies import NONE, TRIED, Option
from attacks.catalogue import ATTACKS
from attacks.core.intervals import Estimate, clopper_pearson
from tests.attacks.audit.records import record

TARGETS = (0, 2)
FAMILY_OF = {attack: family for family, attacks in TRIED.items() for attack in attacks}


def option(name: str, *, reason: str = "") -> Option:
    return Option(name=name, title=name.title(), cost="", budget=1, bench=None, reason=reason)


def auc(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.01, high=value + 0.01, method="x", count=500)


def cells_of(option_name: str, figures: Mapping[str, float]) -> dict[TrialName, Trial]:
    """The same figure on both targets but for a thousandth, so that intervals have a width."""
    found = {}
    for attack, value in figures.items():
        metric = "accuracy" if attack == "accuracy" else METRIC[FAMILY_OF[attack]]
        for index, target in enumerate(TARGETS):
            estimate = (
                auc(value + 0.001 * index)
                if metric == "auc"
                else clopper_pearson(round(1000 * value) + index, 1000)
            )
            name = TrialName(twin=option_name, attack=attack, target=target)
            found[name] = Trial(status=DONE, primary=metric, metrics={metric: estimate})
    return found


PLAIN = {"accuracy": 0.95, "quadratic-extraction": 0.99, "knockoff": 0.9, "lira-fixed": 0.7}


def ranked(**others: Mapping[str, float]) -> dict[str, RemedyRecord]:
    cells = cells_of(NONE, PLAIN)
    for name, figures in others.items():
        cells |= cells_of(name, figures)
    options = [option(NONE), *(option(name) for name in others)]
    return {remedy.name: remedy for remedy in remedies(options, cells, TARGETS)}


def test_every_attack_that_is_tried_is_in_the_catalogue() -> None:
    assert all(ATTACKS[name].family == family for name, family in FAMILY_OF.items())
    assert METRIC.keys() == TRIED.keys()


def test_the_best_attack_against_each_remedy_counts() -> None:
    found = ranked(scaling={"accuracy": 0.95, "quadratic-extraction": 0.4, "knockoff": 0.9})
    effect = found["scaling"].effects["extraction"]
    assert effect.against == "knockoff"
    assert effect.removed.value == pytest.approx(0.09, abs=2e-3)
    assert "membership" not in found["scaling"].effects  # nothing ran there


def test_membership_is_counted_as_advantage() -> None:
    effect = ranked(decay={"accuracy": 0.95, "lira-fixed": 0.6})["decay"].effects["membership"]
    assert effect.before.value == pytest.approx(0.4, abs=2e-3)
    assert effect.removed.value == pytest.approx(0.2, abs=2e-3) and effect.measurable


def test_worth_is_what_was_removed_a_point_of_accuracy_and_orders_the_table() -> None:
    found = ranked(
        dear={"accuracy": 0.85, "lira-fixed": 0.6},
        cheap={"accuracy": 0.94, "lira-fixed": 0.6},
        idle={"accuracy": 0.95, "lira-fixed": 0.7},
    )
    assert list(found) == ["cheap", "dear", "idle"]
    assert found["cheap"].worth == pytest.approx(20, rel=0.1)
    assert found["dear"].worth == pytest.approx(2, rel=0.1)
    assert found["idle"].worth == 0


def test_a_loss_that_cannot_be_measured_is_not_divided_by() -> None:
    free = ranked(free={"accuracy": 0.96, "lira-fixed": 0.6})["free"]
    assert free.worth == pytest.approx(200, rel=0.05)


def test_a_remedy_that_could_not_be_tried_is_last_and_says_why() -> None:
    cells = cells_of(NONE, PLAIN) | cells_of("idle", {"accuracy": 0.95, "lira-fixed": 0.7})
    for target in TARGETS:
        name = TrialName(twin="dp-sgd", attack="accuracy", target=target)
        cells[name] = Trial(status=REFUSED, reason="install the extra")
    options = [option(NONE), option("dp-sgd", reason="install the extra"), option("idle")]
    found = remedies(options, cells, TARGETS)
    assert [remedy.name for remedy in found] == ["idle", "dp-sgd"]
    assert found[1].accuracy is None and found[1].reason == "install the extra"


def findings(found: Mapping[str, RemedyRecord]) -> list[Finding]:
    return list(SECTION.findings(record(remedies=tuple(found.values()))))


def test_findings_name_what_helps_and_what_does_nothing() -> None:
    found = ranked(
        decay={"accuracy": 0.94, "lira-fixed": 0.6}, idle={"accuracy": 0.95, "lira-fixed": 0.7}
    )
    (finding,) = findings(found)
    assert "Decay: 20.0 points of membership less for 1.0 points of accuracy" in finding.text
    assert "Without measurable effect: Idle" in finding.text
    (nothing,) = findings(ranked(idle=dict(PLAIN)))
    assert "No remedy" in nothing.title
    assert findings({}) == []
