"""The demonstration end to end: its own server process, and figures that add up."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from he_infer.cli import demo
from he_infer.cli.demo_report import draw_digit, render
from he_infer.compiler.pipeline import compile as compile_model
from he_infer.errors import InputError, ServiceError
from he_infer.plan.plan import Plan
from he_infer.zoo import load, sample


def test_digits_are_drawn_in_half_blocks() -> None:
    image = np.array([[255, 0], [0, 255], [255, 255]], dtype=np.uint8)
    assert draw_digit(image) == "▀▄\n▀▀"
    assert len(draw_digit(np.zeros((28, 28), dtype=np.uint8)).splitlines()) == 7


def test_more_images_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match="the test set has"):
        demo.DemoConfig(model="digits-mlp", images=1, batch=10**6)


@pytest.mark.slow
def test_the_demonstration_measures_what_it_reports(tmp_path: Path) -> None:
    report = demo.run(demo.DemoConfig(model="digits-mlp", images=3, batch=50))
    assert report.inference_agreement >= 52 / 53  # a near tie may flip under noise
    assert report.security_bits >= 128 and report.max_error < 0.05
    assert report.batch is not None and report.batch.capacity == 64
    assert 0 < report.batch.images_per_s < report.batch.images_per_s_evaluated
    assert all(a.evaluate_ms < a.total_ms for a in report.answers)
    demo.write(report, tmp_path / "demo.json")
    stored = json.loads((tmp_path / "demo.json").read_text())
    assert stored["inference_agreement"] == report.inference_agreement
    assert len(stored["answers"]) == 3 and "picture" not in stored["answers"][0]
    assert f"{report.inference_agreement:.2%}" in render(report)


@pytest.mark.slow
def test_the_server_process_ends_with_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    class Recorded(subprocess.Popen[str]):
        def __init__(self, command: list[str], **options: Any) -> None:
            super().__init__(command, **options)
            started.append(self.pid)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    plan = compile_model(load("digits-mlp"), sample("digits-mlp", 64), name="digits-mlp")
    with pytest.raises(RuntimeError, match="on purpose"), demo.serving([plan]) as address:
        assert address.startswith("http://127.0.0.1:")
        raise RuntimeError("on purpose")
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)


@pytest.mark.slow
def test_a_server_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def save_damaged(plan: Plan, path: str) -> None:
        Path(path).write_bytes(b"not a plan")

    monkeypatch.setattr(demo, "save_plan", save_damaged)
    plan = compile_model(load("digits-mlp"), sample("digits-mlp", 64), name="digits-mlp")
    with pytest.raises(ServiceError, match="did not start: he-infer: error"), demo.serving([plan]):
        pytest.fail("served a plan that cannot be read")
