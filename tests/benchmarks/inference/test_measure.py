"""Records hold what was measured, for every backend, on a network small enough to check."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import record
from benchmarks.inference.cases import Case, Square, load
from benchmarks.inference.compiled import EncryptedEngine, compiled_engine
from benchmarks.inference.measure import measure
from benchmarks.inference.options import outcome_of
from benchmarks.record import Record, Timing
from he_infer import native
from he_infer.compiler.pipeline import compile as compile_model
from he_infer.errors import BackendError, InputError
from he_infer.params import CKKSParams
from he_infer.plan.plan import Plan

# 38-bit scale: logits are exact to about 1e-6, and the test can tell noise from mistakes.
ENCRYPTED = "seal" if native.core is None else "native"
PARAMS = CKKSParams.from_bits(8192, [46, 38, 38, 38], special_bits=46)


@pytest.fixture(scope="module")
def small() -> Case:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), Square(), nn.Linear(8, 3)).eval()
    rng = np.random.default_rng(1)
    return Case(
        name="small",
        model=model,
        sample=rng.random((64, 1, 4, 4), dtype=np.float32),
        inputs=rng.random((12, 1, 4, 4), dtype=np.float32),
        labels=np.arange(12) % 3,
    )


def plan_of(case: Case, batch: int) -> Plan:
    return compile_model(case.model, case.sample, name=case.name, batch=batch, params=PARAMS)


@pytest.mark.parametrize("backend", ["plain", "simulated", "seal"])
@pytest.mark.parametrize("batch", [1, 4])
def test_every_backend_answers_like_the_network(small: Case, backend: str, batch: int) -> None:
    engine = compiled_engine(plan_of(small, batch), backend, np.random.default_rng(0))
    r = measure(engine, small, queries=3, threads=1)
    assert r.max_error < (1e-9 if backend == "plain" else 2.0**-9)
    assert r.label_agreement == 1.0
    expected = small.logits(small.inputs[: 3 * batch]).argmax(axis=1)
    assert small.labels is not None
    assert r.accuracy == np.mean(expected == small.labels[: 3 * batch])
    assert (r.backend, r.batch, r.records, r.evaluate_ms.repeats) == (backend, batch, 3 * batch, 3)
    assert r.evaluate_ms.min <= r.evaluate_ms.median <= r.evaluate_ms.max
    assert r.images_per_s > r.images_per_s_end_to_end > 0
    assert r.n == 8192 and r.security_bits == 128


def test_sizes_are_those_of_the_bytes(small: Case) -> None:
    engine = EncryptedEngine(plan_of(small, 1), backend=ENCRYPTED, threads=1)
    assert engine.keygen() == engine.key_bytes


def test_stages_out_of_order_are_refused(small: Case) -> None:
    engine = EncryptedEngine(plan_of(small, 1), backend=ENCRYPTED, threads=1)
    with pytest.raises(BackendError, match="keygen"):
        engine.encrypt(small.inputs[:1])
    with pytest.raises(BackendError, match="prepare"):
        engine.evaluate([])


def test_more_records_than_the_case_has_are_refused(small: Case) -> None:
    engine = compiled_engine(plan_of(small, 4), "plain", np.random.default_rng(0))
    with pytest.raises(InputError, match="need 16, the case has 12"):
        measure(engine, small, queries=4, threads=1)
    with pytest.raises(InputError, match="5 records do not fit"):
        measure(engine, small, queries=1, threads=1, records_per_query=5)


def test_an_unknown_backend_or_case_is_named(small: Case) -> None:
    with pytest.raises(BackendError, match="'gpu'"):
        compiled_engine(plan_of(small, 1), "gpu", np.random.default_rng(0))
    with pytest.raises(InputError, match="'resnet'"):
        load("resnet")


def a_record(small: Case, engine: str, evaluate_ms: float) -> Record:
    made = compiled_engine(plan_of(small, 1), "plain", np.random.default_rng(0))
    r = measure(made, small, queries=1, threads=1)
    values = {name: getattr(r, name) for name in Record.__dataclass_fields__}
    return Record(**{**values, "engine": engine, "evaluate_ms": Timing.of([evaluate_ms])})


def test_ratios_are_to_the_first_record(small: Case, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "records.json"
    outcome = outcome_of([a_record(small, "a", 10.0), a_record(small, "b", 400.0)])
    record.write_json(path, outcome.document)
    first, second = json.loads(path.read_text())
    assert (first["ratio_evaluate"], second["ratio_evaluate"]) == (1.0, 40.0)
    assert second["evaluate_ms"] == {"median": 400.0, "min": 400.0, "max": 400.0, "repeats": 1}
    assert len(outcome.lines) == 2


def test_security_is_counted_by_the_2024_guidelines() -> None:
    assert record.security_bits(8192, 218.0) == 0  # SEAL's own table would accept it
    assert record.security_bits(8192, 214.0) == 128
    assert record.security_bits(8192, 147.0) == 192
    assert record.security_bits(1024, 20.0) == 0


def test_timing_needs_a_run() -> None:
    with pytest.raises(InputError, match="at least one"):
        Timing.of([])


def test_the_random_network_is_always_the_same() -> None:
    first, second = load("mlp-784-128-10"), load("mlp-784-128-10")
    assert first.labels is None
    records = first.inputs[:2]
    np.testing.assert_array_equal(first.logits(records), second.logits(records))
