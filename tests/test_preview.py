"""The preview predicts what the real backend then does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from he_infer.backends.seal import SealBackend
from he_infer.compiler import compile as compile_model
from he_infer.costs import CostModel
from he_infer.errors import InputError
from he_infer.executor import Executor
from he_infer.keys import SecretKeys
from he_infer.params import CKKSParams
from he_infer.plan import Plan
from he_infer.preview import Preview, preview

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
def reference() -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    with torch.no_grad():
        return np.asarray(Squared().double()(torch.from_numpy(CHECK)).numpy())


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compile_model(Squared(), SAMPLE, name="squared", params=PARAMS)


def predict(plan: Plan, check: np.ndarray, reference: np.ndarray) -> Preview:
    return preview(
        plan,
        sample=SAMPLE,
        check=check,
        reference=reference,
        cost=CostModel(),
        rng=np.random.default_rng(0),
    )


def test_sizes_and_counts_are_those_of_a_real_run(plan: Plan, reference: np.ndarray) -> None:
    p = predict(plan, CHECK, reference)
    secret = SecretKeys.generate(plan.params)
    keys = secret.evaluation_keys(plan.rotation_steps)
    assert len(keys.to_bytes()) == p.key_bytes
    executor = Executor(plan, SealBackend(plan.params))
    query = secret.encrypt(plan.client_spec.pack(CHECK[:1]), plan.client_spec.input_scale)
    (reply,) = executor.run(query, executor.load_keys(keys))
    slots = secret.decrypt(reply).real[None]
    error = np.abs(plan.client_spec.unpack(slots, 1) - reference[:1]).max()
    # One record's error is at most a few times the simulated worst of 24.
    assert error < 5 * p.max_error
    assert p.key_switches == p.operations["rotate"] + p.operations["relinearize"]
    assert p.label_agreement == 1.0 and p.plan_error < 1e-9 < p.max_error < 1e-4


def test_records_outside_the_ranges_are_counted(plan: Plan, reference: np.ndarray) -> None:
    assert max(predict(plan, CHECK, reference).outside.values()) < 0.5
    with torch.no_grad():
        far = np.asarray(Squared().double()(torch.from_numpy(CHECK * 10)).numpy())
    with pytest.warns(UserWarning, match="outside the calibrated range"):
        shares = predict(plan, CHECK * 10, far).outside
    assert min(shares.values()) == 1.0


def test_a_reference_of_another_shape_is_refused(plan: Plan, reference: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected"):
        predict(plan, CHECK, reference[:, :2])
