"""The doctor measures, and what it stores predicts what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from he_infer import doctor
from he_infer.costs import CostModel
from he_infer.errors import FileFormatError


def test_costs_reproduce_the_timings_they_come_from() -> None:
    timings = doctor.PrimitiveTimings(
        n=8192,
        primes=7,
        rotate_ms=8.0,
        relinearize_ms=7.9,
        multiply_plain_ms=0.4,
        add_ms=0.1,
        rescale_ms=1.3,
    )
    model = timings.cost_model()
    assert model.key_switch_ms(8192, 6) == pytest.approx(8.0)
    assert model.multiply_plain_ms(8192, 6) == pytest.approx(0.4)
    assert model.add_ms(8192, 6) == pytest.approx(0.1)


def test_primitives_are_timed() -> None:
    timings = doctor.time_primitives(repeats=1)
    assert timings.n == 8192 and timings.primes == len(doctor.TIMING_BITS)
    # A key switch transforms every digit under every prime; an addition touches words once.
    assert timings.rotate_ms > timings.rescale_ms > timings.add_ms > 0
    assert timings.rotate_ms > timings.multiply_plain_ms


def test_costs_survive_their_file(tmp_path: Path) -> None:
    model = CostModel(transform_us=90.5, word_ns=3.25, add_ns=0.75)
    doctor.write_costs(tmp_path / "costs.json", model)
    assert doctor.read_costs(tmp_path / "costs.json") == model


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        json.dumps({"transform_us": 1, "word_ns": 1, "add_ns": -1}),
        json.dumps({"transform_us": 1, "word_ns": 1, "add_ns": True}),
        json.dumps({"transform_us": 1, "word_ns": 1, "add_ns": 1, "more": 1}),
        '{"transform_us": 1, "word_ns": 1, "add_ns": NaN}',
    ],
)
def test_other_cost_files_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(content)
    with pytest.raises(FileFormatError, match=r"costs\.json"):
        doctor.read_costs(path)
    with pytest.raises(FileFormatError):
        doctor.read_costs(tmp_path / "absent.json")


def test_the_machine_is_described() -> None:
    machine = doctor.inspect_machine()
    assert machine.tenseal_is_safe and machine.cores >= 1
    assert machine.data["mnist/test"] == "in the package"
    assert json.loads(json.dumps(machine.to_json()))["tenseal"] == machine.tenseal
