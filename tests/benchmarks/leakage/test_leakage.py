"""Rows are complete, tables say what was measured, and the paired run agrees with itself."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attacks.core.intervals import Estimate
from attacks.errors import AttackError
from benchmarks.__main__ import main
from benchmarks.leakage import paired, reference
from benchmarks.rows import Row, lines, merged
from benchmarks.tables import with_table
from tests.attacks.report.made_up import audit
from tests.paths import CHECKOUT

ROW = Row("a row", "somebody", reference=0.5, ours=0.6, interval=[0.5, 0.7], holds=True)


def test_rows_are_written_with_all_their_fields() -> None:
    row = ROW.to_json()
    assert list(row) == ["name", "source", "reference", "ours", "interval", "holds", "reason"]
    judged: Any = np.float64(1) > 0
    assert json.dumps(replace(ROW, holds=judged).to_json())
    (line,) = lines([row])
    assert line == "holds a row: ours 0.6 [0.5, 0.7], reference 0.5 (somebody)"


def test_an_estimate_brings_its_interval() -> None:
    estimate = Estimate(value=0.6, low=0.5, high=0.7, method="made up", count=9)
    assert replace(ROW, ours=estimate, interval=None).to_json() == ROW.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ours": float("nan")}, "no finite figure"),
        ({"holds": None, "reason": ""}, "neither whether it holds nor why not"),
    ],
)
def test_rows_that_say_nothing_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(AttackError, match=message):
        replace(ROW, **change)


def test_a_group_that_fails_is_a_row_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Row]:
        raise AttackError("it broke")

    monkeypatch.setattr(reference, "GROUPS", {"good": lambda: [ROW], "bad": broken})
    rows = reference.run(["good", "bad"])
    assert [row["holds"] for row in rows] == [True, False]
    assert rows[1]["reason"] == "it failed: it broke"
    assert [row["group"] for row in rows] == ["good", "bad"]


def test_groups_that_ran_again_take_the_place_of_their_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reference, "GROUPS", dict.fromkeys(("a", "b", "c"), lambda: [ROW]))
    before = [{"group": group, **ROW.to_json(), "name": "old"} for group in ("a", "a", "c", "gone")]
    found = merged(before, reference.run(["b", "a"]), ["a", "b", "c"])
    assert [(row["group"], row["name"]) for row in found] == [
        ("a", "a row"),
        ("b", "a row"),
        ("c", "old"),
    ]


def test_the_documented_reference_table_is_the_record() -> None:
    root = CHECKOUT
    page = (root / "docs" / "published-figures.md").read_text(encoding="utf-8")
    record = root / "docs" / "measurements" / "leakage-reference.json"
    assert with_table(page, record, "reference") == page


def test_the_paired_table_has_every_cell_once() -> None:
    found = paired.document({"digits": audit(), "mnist": audit()}, {"other": "absent"})
    assert len(found["cells"]) == 2 * 3 * 4
    assert found["simulated_agrees_with_encrypted"] == {"figures": 4, "outside": []}
    text = "\n".join(paired.table(found))
    assert text.count("| digits |") == 3 and "refused" in text
    assert "0.990 [0.970, 1.010]" in text


def test_the_table_names_no_place_on_this_machine() -> None:
    document = audit()
    model = str(Path(paired.__file__).parent / "models.py") + ":digits_mlp"
    document["config"] |= {"model": model, "out": "/somewhere/else"}
    text = json.dumps(paired.document({"digits": document}, {}))
    assert "benchmarks/leakage/models.py:digits_mlp" in text
    assert "/somewhere" not in text and str(CHECKOUT) not in text


@pytest.mark.parametrize(
    "arguments", [["--reference", "--groups", "nope"], ["--paired", "--data", "imagenet"]]
)
def test_unknown_names_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["leakage", *arguments]) == 2
    assert "takes" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(3600)  # minutes on a machine of its own
def test_a_small_paired_run(tmp_path: Path) -> None:
    target = tmp_path / "paired.json"
    arguments = ["--paired", "--small", "--work", str(tmp_path / "work"), "--json", str(target)]
    assert main(["leakage", *arguments]) == 0
    found = json.loads(target.read_text())
    done = {(c["attack"], c["twin"]) for c in found["cells"] if c["status"] == "done"}
    assert len({attack for attack, _ in done}) >= 8
    stolen = next(
        c
        for c in found["cells"]
        if (c["attack"], c["twin"]) == ("quadratic-extraction", "encrypted")
    )
    batch = found["audits"]["digits"]["plan"]["batch"]
    assert stolen["metrics"]["fidelity_test"]["value"] > 0.99
    assert stolen["requests"] == math.ceil(stolen["records"] / batch)
    # Some dozen figures at 95 %, several of them of the same answers: a few outside may be chance,
    # but what noise alone moves is less than a thousandth. More than three that are both outside
    # and visibly apart would be no accident.
    served = [p for p in found["pairs"] if (p["from"], p["to"]) == paired.SERVED]
    agreement = found["simulated_agrees_with_encrypted"]
    assert len(served) == agreement["figures"] >= 16
    outside = [p for p in served if p["significant"]]
    assert len(outside) == len(agreement["outside"])
    assert sum(abs(p["difference"]["value"]) > 0.005 for p in outside) <= 3
