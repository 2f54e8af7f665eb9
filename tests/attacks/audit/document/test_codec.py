"""The audit document as types: it survives the way to JSON and back, and mistakes are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attacks.audit.document.codec import from_json, to_json
from attacks.audit.document.records import AuditRecord, Finding, PairedDifference
from attacks.catalogue import ATTACKS
from attacks.core.intervals import exact
from attacks.errors import AuditError
from tests.attacks.audit.records import EMPTY, difference
from tests.attacks.report.made_up import audit


def test_a_document_survives_being_read_and_written() -> None:
    document = audit()
    written = to_json(from_json(AuditRecord, document))
    absent: dict[str, Any] = {
        "ciphertext": [],
        "evasion": None,
        "remedies": [],
        "poisoning": [],
        "notes": [],
    }
    assert json.loads(json.dumps(written)) == document | absent
    assert to_json(from_json(AuditRecord, to_json(EMPTY))) == to_json(EMPTY)


def test_a_field_may_have_another_key() -> None:
    pair = difference("clear", "served", "auc", exact(0.5, count=2))
    written = to_json(pair)
    assert (written["from"], written["to"], written["significant"]) == ("clear", "served", True)
    assert from_json(PairedDifference, written) == pair


def test_paths_are_text_and_other_objects_are_refused() -> None:
    assert to_json({"out": Path("a/b")}) == {"out": "a/b"}
    with pytest.raises(TypeError, match="JSON has no place for set"):
        to_json({1, 2})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"severity": "dire"}, "severity: expected one of high, medium, low, ok, got 'dire'"),
        ({"title": 3}, "title: has the wrong type, int"),
        ({"colour": "red"}, "colour: unknown, expected severity, title, text, advice"),
    ],
)
def test_mistakes_are_named_by_their_path(change: dict[str, Any], message: str) -> None:
    finding = {"severity": "ok", "title": "a", "text": "b", "advice": ""}
    assert from_json(Finding, finding) == Finding(severity="ok", title="a", text="b")
    with pytest.raises(AuditError) as caught:
        from_json(Finding, finding | change)
    assert str(caught.value) == message
    document = audit() | {"findings": [finding | change]}
    with pytest.raises(AuditError) as caught:
        from_json(AuditRecord, document)
    assert str(caught.value) == f"findings[0].{message}"


def test_an_unknown_twin_and_something_else_entirely_are_refused() -> None:
    document = audit() | {"twins": ["encrypted"]}
    with pytest.raises(AuditError, match=r"attacks\[0\]\.cells\.plaintext-relu: not one of"):
        from_json(AuditRecord, document)
    wrong: Any = ["not", "an", "object"]
    with pytest.raises(AuditError, match="has the wrong type, list"):
        from_json(AuditRecord, wrong)


def test_records_know_the_published_names_of_attacks() -> None:
    record = from_json(AuditRecord, audit())
    assert {attack.published for attack in record.attacks} <= {
        entry.published for entry in ATTACKS.values()
    }
    assert ATTACKS["lira-fixed"].published == "LiRA, online, fixed variance"
