"""The table of what to do: order, bold figures, what could not be tried, and broken documents."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from attacks.errors import AuditError
from attacks.report.page import render
from tests.attacks.report.made_up import audit, estimate


def effect(before: float, after: float, *, measurable: bool) -> dict[str, Any]:
    return {
        "before": estimate(before),
        "after": estimate(after),
        "removed": estimate(before - after),
        "against": "lira-fixed",
        "measurable": measurable,
    }


REMEDIES = [
    {
        "name": "early-stopping",
        "title": "Fewer <epochs>",
        "cost": "training anew",
        "effects": {
            "membership": effect(0.4, 0.2, measurable=True),
            "extraction": effect(0.99, 0.98, measurable=False),
        },
        "accuracy": estimate(0.94),
        "lost": estimate(0.01),
        "worth": 20.0,
        "reason": "",
    },
    {
        "name": "dp-sgd",
        "title": "DP-SGD",
        "cost": "training anew",
        "effects": {},
        "accuracy": None,
        "lost": None,
        "worth": 0.0,
        "reason": "install the extra dp",
    },
]


def document() -> dict[str, Any]:
    return {**audit(), "remedies": copy.deepcopy(REMEDIES)}


def test_the_table_says_what_each_remedy_does_and_costs() -> None:
    page = render(document())
    assert 'id="remedies"' in page and "What to do" in page
    assert "Fewer &lt;epochs&gt;" in page
    assert '<td class="differs"><span class="value">40.0 → 20.0</span>' in page
    assert '<td><span class="value">99.0 → 98.0</span>' in page
    assert "not tried: install the extra dp" in page


def test_an_audit_without_remedies_has_no_such_section() -> None:
    assert 'id="remedies"' not in render(audit())


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("worth",), r"remedies\[0\].worth"),
        (("effects", "membership", "removed"), "effects.membership.removed"),
        (("effects", "extraction", "measurable"), "effects.extraction.measurable"),
        (("lost",), r"remedies\[0\].lost"),
    ],
)
def test_what_is_missing_is_named(path: tuple[str, ...], message: str) -> None:
    broken = document()
    place = broken["remedies"][0]
    for name in path[:-1]:
        place = place[name]
    del place[path[-1]]
    with pytest.raises(AuditError, match=message):
        render(broken)
