"""A server that is told to leave before it has begun: nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from he_infer.compiler.pipeline import compile
from he_infer.plan.file import save_plan

LIMIT_S = 120.0


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    sample = np.random.default_rng(0).uniform(-1, 1, (64, 4))
    path = tmp_path_factory.mktemp("plans") / "small.plan"
    save_plan(compile(nn.Linear(4, 3), sample, name="small"), path)
    return path


@contextmanager
def serving(plan: Path, home: Path) -> Iterator[subprocess.Popen[str]]:
    """`he-infer serve`, whose temporary state lies in ``home``; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "he_infer", "serve", "--port", "0", str(plan)],
        env={**os.environ, "TMPDIR": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def left_behind(home: Path) -> list[Path]:
    return list(home.glob("he-infer-*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_as_soon_as_the_address_is_told(plan: Path, tmp_path: Path, number: signal.Signals) -> None:
    with serving(plan, tmp_path) as process:
        assert process.stdout is not None
        assert "http" in process.stdout.readline()
        process.send_signal(number)
        _, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0
        assert "Traceback" not in errors and "never awaited" not in errors
    assert left_behind(tmp_path) == []


def test_while_plans_are_loaded(plan: Path, tmp_path: Path) -> None:
    with serving(plan, tmp_path) as process:
        deadline = time.monotonic() + LIMIT_S
        while not left_behind(tmp_path):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 128 + signal.SIGTERM
        assert "Traceback" not in errors
    assert left_behind(tmp_path) == []
