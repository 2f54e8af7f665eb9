"""Sizing: arithmetic that can be checked by hand, figures that are the plan's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from benchmarks.__main__ import main
from benchmarks.inference.cases import Square
from benchmarks.service import sizing
from benchmarks.service.sizing import Footprint, deployments
from he_infer.compiler.pipeline import compile as compile_model
from he_infer.compiler.report import compile_report
from he_infer.errors import InputError
from he_infer.plan.file import save_plan
from he_infer.plan.plan import Plan

QUERY = Footprint(
    evaluate_ms=20.0,
    overhead_ms=4.0,
    query_bytes=160_000,
    reply_bytes=50_000,
    key_bytes=12_000_000,
    loaded_key_bytes=30_000_000,
    weights_bytes=1_000_000,
    records=2,
)


@pytest.fixture(scope="module")
def plan() -> Plan:
    model = nn.Sequential(nn.Linear(16, 8), Square(), nn.Linear(8, 3)).eval()
    sample = np.random.default_rng(1).random((64, 16), dtype=np.float32)
    return compile_model(model, sample, name="small")


def test_rows_are_what_a_calculation_by_hand_gives() -> None:
    one, hundred, many = deployments(QUERY, clients=1000, core_hour_price=0.05, gb_price=0.1)
    assert [row.queries_per_s for row in (one, hundred, many)] == [1, 100, 10_000]
    # 24 ms a query: 0.024, 2.4 and 240 busy cores, at 60 % 0.04, 4 and 400.
    assert [row.busy_cores for row in (one, hundred, many)] == pytest.approx([0.024, 2.4, 240])
    assert [row.cores for row in (one, hundred, many)] == [1, 4, 400]
    # 4 ms of it are a server's own: 0.4 and 40 cores, at 60 % 0.67 and 66.7.
    assert [row.servers for row in (one, hundred, many)] == [1, 1, 67]
    assert many.weights_memory_bytes == 67_000_000
    assert hundred.records_per_s == 200
    assert hundred.key_memory_bytes == 30_000_000_000 == one.key_memory_bytes
    assert hundred.key_memory_most_bytes == 4 * hundred.key_memory_bytes
    assert hundred.key_storage_bytes == 12_000_000_000
    assert hundred.in_bits_per_s == 128e6 and hundred.out_bits_per_s == 40e6
    # A million queries at 100/s take 10,000 s of four cores, and 50 GB of replies.
    assert hundred.core_price == pytest.approx(4 * 10_000 / 3600 * 0.05)
    assert hundred.traffic_price == pytest.approx(50 * 0.1)
    assert hundred.price == pytest.approx(5.0 + 4 * 10_000 / 3600 * 0.05)
    # One core for eleven and a half days, however little it does.
    assert one.core_price == pytest.approx(1e6 / 3600 * 0.05)


def test_no_price_is_made_up() -> None:
    assert {row.price for row in deployments(QUERY, clients=1)} == {None}
    (free,) = deployments(QUERY, clients=1, rates=[1.0], core_hour_price=0.0)
    assert (free.core_price, free.traffic_price, free.price) == (0.0, None, 0.0)


def test_a_rounding_error_buys_no_core() -> None:
    # 30 × 20 ms at 60 % is exactly one core, and 0.6000000000000001 / 0.6 is more than one.
    whole = Footprint(
        evaluate_ms=20.0, query_bytes=1, reply_bytes=1, key_bytes=1, loaded_key_bytes=1
    )
    assert [row.cores for row in deployments(whole, clients=1, rates=[30.0, 30.1])] == [1, 2]
    assert [row.cores for row in deployments(whole, clients=1, utilisation=1.0, rates=[50.0])] == [
        1
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"clients": 0},
        {"clients": 1, "utilisation": 0.0},
        {"clients": 1, "utilisation": 1.1},
        {"clients": 1, "rates": [0.0]},
        {"clients": 1, "core_hour_price": -1.0},
        {"clients": 1, "gb_price": float("nan")},
    ],
)
def test_inputs_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        deployments(QUERY, **wrong)


@pytest.mark.parametrize(
    "field", ["evaluate_ms", "overhead_ms", "query_bytes", "loaded_key_bytes", "records"]
)
def test_a_footprint_has_no_negative_sizes(field: str) -> None:
    values = {"evaluate_ms": 1.0, "query_bytes": 1, "reply_bytes": 1, "key_bytes": 1}
    with pytest.raises(InputError, match=field):
        Footprint(**{**values, "loaded_key_bytes": 1, field: -1})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="positive"):
        Footprint(evaluate_ms=0, query_bytes=1, reply_bytes=1, key_bytes=1, loaded_key_bytes=1)


def test_a_footprint_is_that_of_the_compile_report(plan: Plan) -> None:
    rng = np.random.default_rng(0)
    report = compile_report(plan, rng.random((8, 16)), rng=rng)
    found = sizing.footprint_of(plan, overhead_ms=3.0)
    assert (found.key_bytes, found.query_bytes) == (report.key_bytes, report.query_bytes)
    assert found.records == report.batch and found.overhead_ms == 3.0
    assert found.loaded_key_bytes > found.key_bytes  # expanded
    assert found.reply_bytes <= report.reply_bytes
    from he_infer import native

    if native.core is not None:
        assert found.evaluate_ms == pytest.approx(report.predicted_ms)
        assert found.weights_bytes == report.encoded_weights_bytes
    assert sizing.footprint_of(plan, evaluate_ms=12.5).evaluate_ms == 12.5


def test_the_command_prints_and_writes(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "small.heplan", tmp_path / "deep" / "sizing.json"
    save_plan(plan, file)
    words = ["--plan", str(file), "--clients", "10", "--evaluate-ms", "6", "--json", str(out)]
    assert main(["sizing", *words, "--core-hour-price", "0.05"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4 and printed[0].startswith("small: 1 record(s) a query, 6 ms")
    assert printed[3].startswith("10,000 queries/s: 100 core(s) in 1 server(s) with ")
    assert printed[3].endswith("per million queries")
    written = json.loads(out.read_text())
    assert [row["cores"] for row in written["rows"]] == [1, 1, 100]
    assert (written["plan"], written["clients"], written["gb_price"]) == ("small", 10, None)
    assert written["footprint"]["evaluate_ms"] == 6


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sizing", "--plan", str(tmp_path / "absent.heplan")]) == 2
    assert "absent.heplan" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["sizing", "--clients", "3"])  # neither a plan nor a case
    with pytest.raises(SystemExit):
        main(["sizing", "--plan", "a.heplan", "--case", "tutorial-cnn"])


def test_sizes_are_readable() -> None:
    assert [sizing.size(n) for n in (0, 999, 1000, 12.1e6, 3e13)] == [
        *("0 B", "999 B", "1 kB", "12.1 MB", "30 TB"),
    ]
