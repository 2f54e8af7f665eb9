"""The benchmark of defences: tables say what was measured, the floor is what its formula says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attacks.defences.serving import serving_defences
from attacks.errors import AttackError
from benchmarks.__main__ import main
from benchmarks.defences import live, table
from benchmarks.defences.adversaries import constants_floor
from benchmarks.defences.setting import data_of, plan_for


def share(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value + 0.005}


def cell(needed: int | None, *, reach: int = 1, knows: bool = True) -> dict[str, Any]:
    tried = [{"records": 4000, "test": share(1.0), "uniform": share(0.93)}]
    return {"attack": "a", "reach": reach, "knows": knows, "needed": needed, "tried": tried}


def entry(name: str, cells: list[dict[str, Any]], floor: int | None = None) -> dict[str, Any]:
    kept = {"accuracy": share(0.99), "lost": share(0.004), "constants_floor": floor}
    return {"defence": name, "keeps_labels": True, "cells": cells, **kept}


FOUND = {
    "defences": [
        entry("none", [cell(600), cell(2700), cell(700, reach=8)]),
        entry("scaling", [cell(None, knows=False), cell(900), cell(1200, reach=8)]),
        entry("noise", [cell(None), cell(6000, reach=8)], floor=605),
    ],
    "prices": {
        "1": {
            "scaling": {
                "levels": 2,
                "first_prime_bits": 45,
                "scale_bits": 27,
                "defence_bits": 11.0,
                "evaluate_ms": 37.5,
                "reach": 4,
            }
        }
    },
    "labels_alone": [{"records": 16000, "test": share(0.99), "uniform": share(0.9)}],
}


def test_tables_name_the_best_adversary_and_what_was_not_reached() -> None:
    rows = table.stolen(FOUND)
    assert rows[2].startswith("| none | – | 600 | 700 | 1.0× | – | 99.0 % (98.0 … 99.5)")
    assert rows[3].startswith("| scaling | > 4,000 (93.0 %) | 900 | 1,200 | 1.5× |")
    assert rows[4].startswith("| noise | – | > 4,000 (93.0 %) | 6,000 | 10.0× | 605 |")
    text = "\n".join(table.lines(FOUND))
    assert "| scaling | 1 | 2 | 45 bits | 11.0 | 37.5 ms | 4 |" in text
    assert "16,000 labels: 99.0 %" in text


@pytest.mark.slow
def test_the_floor_is_quadratic_in_the_noise_and_lower_under_scaling() -> None:
    data = data_of(0)
    floors = [constants_floor(std, 1.0, data, 0) for std in (0.25, 0.5)]
    assert floors[1] == pytest.approx(4 * floors[0], rel=0.02)
    # The mean of squared factors in [1/2, 2] is (4 − 1/4) / (4 ln 2).
    scaled = constants_floor(0.5, 2.0, data, 0)
    assert floors[1] / scaled == pytest.approx(3.75 / (4 * np.log(2)), rel=0.02)


def test_plans_take_the_strengths_of_a_defence() -> None:
    defence = serving_defences(noise_std=0.25)["scaling+shift+noise"]
    privacy = plan_for(defence, batch=1).privacy
    assert (privacy.noise_std, privacy.scaling, privacy.shift) == (0.25, 2.0, 8.0)


def test_unknown_defences_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["defences", "--only", "rounding"]) == 2
    assert "--only takes none, scaling" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_writes_what_it_measured(tmp_path: Path) -> None:
    path = tmp_path / "defences.json"
    attacks = "network-matching"
    words = ["defences", "--only", "none,scaling", "--attacks", attacks, "--most", "1400"]
    assert main([*words, "--labels", "--repeats", "2", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    needed = {e["defence"]: [c["needed"] for c in e["cells"]] for e in found["defences"]}
    assert 400 < needed["none"][0] <= needed["scaling"][0] <= 1400
    prices = found["prices"]["1"]
    assert prices.keys() == {"none", "scaling"}
    assert prices["scaling"]["levels"] == prices["none"]["levels"]
    assert found["prices"]["1"]["none"]["reach"] >= 2


def test_the_cheapest_adversary_who_knows_is_repeated() -> None:
    cells = [cell(None), cell(500, knows=False), cell(900), cell(700, reach=4), cell(800)]
    assert live.cheapest(cells)["reach"] == 4
    with pytest.raises(AttackError, match="no adversary of the record reached the goal"):
        live.cheapest([cell(None)])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"defences": [{"defence": "none"}]}'])
def test_what_is_no_record_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    assert main(["defences", "--live", str(path)]) == 2
    assert "is no record of this benchmark" in capsys.readouterr().err


@pytest.mark.slow
def test_the_undefended_service_is_stolen_as_its_record_says(tmp_path: Path) -> None:
    record, found = tmp_path / "record.json", tmp_path / "live.json"
    stolen = [{**cell(600), "attack": "network-matching"}]
    entries = [{"defence": "none", "cells": stolen}]
    record.write_text(json.dumps({"noise_std": 0.5, "defences": entries}))
    assert main(["defences", "--live", str(record), "--json", str(found)]) == 0
    (row,) = json.loads(found.read_text())["live"]
    assert (row["records"], row["requests"]) == (600, 600)
    assert row["uniform"]["value"] > 0.99 and row["test"]["value"] > 0.99
