"""The report's section on evasion: every check on every twin, and what failed."""

from __future__ import annotations

from typing import Any

import pytest

from attacks.errors import AuditError
from attacks.report.page import render
from tests.attacks.report.made_up import TWINS, audit


def _audit(held: int) -> dict[str, Any]:
    check = {
        "name": "gradients_present",
        "title": "Gradients are not zero",
        "tried": dict.fromkeys(TWINS[:3], 2),
        "held": {**dict.fromkeys(TWINS[:3], 2), TWINS[0]: held},
        "notes": [] if held == 2 else [f"{TWINS[0]}: <half> of them"],
    }
    return {**audit(), "evasion": {"epsilon": 0.125, "checks": [check]}}


def test_checks_are_counted_and_failures_explained() -> None:
    page = render(_audit(1))
    assert "moved values by up to 0.125" in page
    assert "fails, 1 of 2" in page and page.count("holds, 2 of 2") == 2
    assert "&lt;half&gt; of them" in page and "<half>" not in page
    assert "fails, 1" not in render(_audit(2))


def test_an_audit_without_evasion_has_no_section() -> None:
    for nothing in (audit(), {**audit(), "evasion": None}):
        assert 'id="evasion"' not in render(nothing)


def test_a_damaged_section_is_refused() -> None:
    broken = _audit(2)
    del broken["evasion"]["checks"][0]["tried"]
    with pytest.raises(AuditError, match=r"evasion\.checks\[0\]\.tried: missing"):
        render(broken)
