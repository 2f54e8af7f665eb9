"""The catalogue: every entry can be made, is named as files are, and says what it needs."""

from __future__ import annotations

import pytest

from attacks.audit.bench.state import TrialName
from attacks.catalogue import ATTACKS, FAMILIES, choose
from attacks.core.entry import Allowance
from attacks.core.oracle import LABELS, LOGITS, PROBABILITIES, OracleInfo
from attacks.errors import AuditError, BudgetError

INFO = OracleInfo(
    name="target",
    kind="plaintext",
    input_shape=(8,),
    classes=3,
    low=0.0,
    high=1.0,
    answers=frozenset({LOGITS, LABELS}),
)


def allowance(budget: int) -> Allowance:
    return Allowance(budget=budget, info=INFO, candidates=100, population=200)


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_every_attack_can_be_made(name: str) -> None:
    entry = ATTACKS[name]
    attack = entry.build(allowance(5000))
    assert callable(attack.run)
    # Whatever has a budget of its own keeps to the one it was given.
    assert getattr(attack, "queries", 0) <= 5000


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_every_attack_says_what_a_reader_needs(name: str) -> None:
    entry = ATTACKS[name]
    TrialName(twin="encrypted", attack=name, target=0)
    assert entry.family in FAMILIES and entry.title and entry.reference
    assert set(entry.needs) <= {LOGITS, PROBABILITIES, LABELS} and entry.needs
    assert entry.to_json(name)["needs"] == " or ".join(entry.needs)


def test_label_only_says_the_least_budget() -> None:
    with pytest.raises(BudgetError, match="200 or more"):
        ATTACKS["label-only"].build(allowance(199))
    assert ATTACKS["label-only"].build(allowance(200)).copies == 1  # type: ignore[attr-defined]


def test_choices_are_unions_in_the_catalogues_order() -> None:
    assert choose(("all",)) == tuple(ATTACKS)
    every = [name for family in FAMILIES for name in choose((family,))]
    assert sorted(every) == sorted(ATTACKS) and len(set(every)) == len(every)
    assert choose(("rmia", "yeom", "rmia")) == ("yeom", "rmia")
    assert choose(("membership", "knockoff"))[0] == "knockoff"


def test_a_wrong_name_gets_the_nearest() -> None:
    with pytest.raises(AuditError, match="did you mean 'lira-fixed'"):
        choose(("lira_fixed",))
    with pytest.raises(AuditError, match="he-infer attacks"):
        choose(("zzzzzz",))
