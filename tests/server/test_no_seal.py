"""A server on the native evaluator never loads SEAL."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from he_infer import native
from he_infer.client.client import Client
from he_infer.compiler.pipeline import compile as compile_model
from he_infer.keys.secret import SecretKeys
from he_infer.plan.file import save_plan
from tests.paths import CHECKOUT

SERVE = """
import sys
from he_infer.plan.file import load_plan
from he_infer.server import BackgroundServer
with BackgroundServer.of_plans([load_plan(sys.argv[1])]) as server:
    print(server.url, flush=True)
    sys.stdin.readline()
print(sorted(name for name in sys.modules if name.split(".")[0] in ("tenseal", "torch")))
"""


@pytest.mark.skipif(native.core is None, reason="the extension was not built")
def test_the_serving_process_needs_no_seal(tmp_path: Path) -> None:
    model = nn.Linear(6, 3).eval()
    sample = np.random.default_rng(0).uniform(-1, 1, (50, 6))
    plan = compile_model(model, sample, name="linear")
    save_plan(plan, tmp_path / "linear.heplan")
    command = [sys.executable, "-c", SERVE, str(tmp_path / "linear.heplan")]
    with subprocess.Popen(
        command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None and server.stdin is not None
        url = server.stdout.readline().strip()
        keys = SecretKeys.generate(plan.params)
        with Client.connect(url, model="linear", keys=keys) as client:
            logits = client.predict(sample[:1]).logits
        server.stdin.write("\n")
        server.stdin.flush()
        loaded = server.stdout.read().strip()
    expected = sample[:1] @ model.weight.detach().numpy().T + model.bias.detach().numpy()
    assert np.abs(logits - expected).max() < 2.0**-8
    assert loaded == "[]"
