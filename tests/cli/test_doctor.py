"""The doctor measures, and what it stores predicts what it measured."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from pathlib import Path

import pytest

from he_infer import native
from he_infer.cli import doctor
from he_infer.errors import FileFormatError
from he_infer.runtime.costs import CostModel, LinearCounts
from he_infer.runtime.machine_costs import Timed, fit, measure

GOOD = dataclasses.asdict(CostModel())


def linear_ms(level: int, counts: LinearCounts, model: CostModel) -> float:
    return model.linear_ms(8192, level, counts)


def exchange_ms(model: CostModel) -> float:
    return model.exchange_ms(8192, 2)


def test_the_fit_recovers_the_constants_it_was_timed_with() -> None:
    """Made-up clocks: the model's own predictions, one of them 10 % off."""
    truth = CostModel(transform_us=31.0, key_word_ns=0.7, plain_word_ns=1.1)
    timings: list[Timed] = []
    for level in (1, 2, 3):
        for babies, giants, folds, full, numbers in itertools.product(
            (0, 7), (0, 3), (0, 4), (0, 9), (0, 50)
        ):
            counts = LinearCounts(
                hoisted=int(babies > 0),
                babies=babies,
                giants=giants,
                folds=folds,
                products=10,
                full=full,
                numbers=numbers,
                targets=1,
            )

            predict = functools.partial(linear_ms, level, counts)
            timings.append((predict, predict(truth)))
    timings.append((exchange_ms, exchange_ms(truth)))
    first, ms = timings[0]
    timings[0] = (first, 1.1 * ms)
    found = fit(timings)
    assert found.transform_us == pytest.approx(truth.transform_us, rel=0.05)
    assert found.key_word_ns == pytest.approx(truth.key_word_ns, rel=0.05)
    assert found.plain_word_ns == pytest.approx(truth.plain_word_ns, rel=0.05)
    assert found.ciphertext_ms == pytest.approx(truth.ciphertext_ms, rel=0.05)


@pytest.mark.slow
@pytest.mark.skipif(native.core is None, reason="the extension was not built")
def test_this_machine_is_measured() -> None:
    costs = fit(measure(repeats=3))  # a median that one interruption does not move
    assert 0.5 < costs.transform_us < 1000
    assert costs.hoisting and costs.key_switch_ms(8192, 2) > 0


def test_costs_survive_their_file(tmp_path: Path) -> None:
    model = CostModel(transform_us=90.5, word_ns=3.25, add_ns=0.75, hoisting=False)
    doctor.write_costs(tmp_path / "costs.json", model)
    assert doctor.read_costs(tmp_path / "costs.json") == model


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        json.dumps({**GOOD, "add_ns": -1}),
        json.dumps({**GOOD, "add_ns": True}),
        json.dumps({**GOOD, "hoisting": 1}),
        json.dumps({**GOOD, "more": 1}),
        json.dumps({"transform_us": 1}),
        json.dumps({**GOOD, "add_ns": float("nan")}),
    ],
)
def test_other_cost_files_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(content)
    with pytest.raises(FileFormatError, match=r"costs\.json"):
        doctor.read_costs(path)
    with pytest.raises(FileFormatError):
        doctor.read_costs(tmp_path / "absent.json")
