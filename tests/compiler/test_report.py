"""The report before deployment predicts what the real backend then does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from he_infer.compiler.pipeline import compile as compile_model
from he_infer.compiler.report import compile_report
from he_infer.errors import InputError
from he_infer.keys.secret import SecretKeys
from he_infer.params import CKKSParams
from he_infer.plan import ir
from he_infer.plan.plan import Plan
from he_infer.runtime.backends.choose import encrypted_backend
from he_infer.runtime.executor import Executor

PARAMS = CKKSParams.from_bits(8192, [46, 38, 38, 38], special_bits=46)
RNG = np.random.default_rng(5)
SAMPLE, CHECK = RNG.uniform(0, 1, (96, 12)), RNG.uniform(0, 1, (24, 12))


class Squared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first, self.second = nn.Linear(12, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        return self.second(hidden * hidden)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compile_model(Squared(), SAMPLE, name="squared", params=PARAMS)


def test_a_report_agrees_with_a_real_run(plan: Plan) -> None:
    report = compile_report(plan, CHECK, rng=np.random.default_rng(0), records=len(CHECK))
    secret = SecretKeys.generate(plan.params)
    keys = secret.evaluation_keys(plan.key_levels)
    assert len(keys.to_bytes()) == report.key_bytes
    executor = Executor(plan, encrypted_backend(plan.params))
    loaded = executor.load_keys(keys)
    spec = plan.client_spec
    exact = ir.evaluate(plan.graph, CHECK)[plan.graph.output.name]
    errors = []
    for record, expected in zip(CHECK, exact, strict=True):
        (reply,) = executor.run(secret.encrypt(spec.pack(record[None]), spec.input_scale), loaded)
        errors.append(spec.unpack(secret.decrypt(reply).real[None], 1)[0] - expected)
    # 72 errors each; a standard deviation from that many is right to a third, and the noise of
    # one key differs from another's by a factor of about two.
    assert 1 / 4 < np.std(errors) / report.predicted_error_std < 4
    rotations = ("hoisted rotate", "giant step", "fold")
    counted = sum(report.operations.get(name, 0) for name in (*rotations, "relinearize"))
    assert report.key_switches == counted > 0
    assert report.predicted_label_agreement == 1.0
    assert report.security_bits == 128 and report.to_json()["n"] == 8192
    assert "128 bits" in report.text()


def test_records_outside_the_ranges_are_counted(plan: Plan) -> None:
    near = compile_report(plan, CHECK, rng=np.random.default_rng(0), records=1)
    with pytest.warns(UserWarning, match="outside the calibrated range"):
        far = compile_report(plan, CHECK * 10, rng=np.random.default_rng(0), records=1)
    assert max(near.outside_ranges.values()) < 0.5 < min(far.outside_ranges.values())


def test_a_sample_of_another_shape_is_refused(plan: Plan) -> None:
    with pytest.raises(InputError, match="expected records"):
        compile_report(plan, CHECK[:, :3], rng=np.random.default_rng(0))
