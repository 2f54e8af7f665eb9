"""What is done to replies: real parts, flooding of the width that the formula says, no spills."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from attacks.oracles.channels import PlanChannel, heavier
from he_infer import native, zoo
from he_infer.compiler.pipeline import compile
from he_infer.compiler.report import compile_report
from he_infer.errors import ParameterError
from he_infer.plan.plan import Plan
from he_infer.plan.privacy import FunctionPrivacy, flooding_bits, flooding_std
from he_infer.runtime.replies import make_masks
from he_infer.runtime.sampling import uniform

BACKENDS = [
    "seal",
    pytest.param("native", marks=pytest.mark.skipif(native.core is None, reason="not built")),
]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compile(zoo.load("digits-mlp"), zoo.sample("digits-mlp", 256), name="digits")


@pytest.mark.parametrize("backend", BACKENDS)
def test_replies_are_real_even_for_complex_queries(plan: Plan, backend: str) -> None:
    channel = PlanChannel(plan, backend=backend)
    rng = np.random.default_rng(0)
    shape = (channel.inputs, channel.slots)
    query = rng.uniform(0, 1, shape) + 1j * rng.uniform(0, 1, shape)
    assert np.abs(channel.ask(query).imag).max() < 1e-2
    bare = PlanChannel(replace(plan, privacy=FunctionPrivacy.unchecked()), backend=backend)
    assert np.abs(bare.ask(query).imag).max() > 0.1


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_made_ahead_covers_one_reply(
    plan: Plan, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def counted(*given: Any) -> list[Any]:
        made.append(make_masks(*given))
        return made[-1]

    channel = PlanChannel(plan, backend=backend)
    monkeypatch.setattr("he_infer.runtime.executor.make_masks", counted)
    query = channel.query(np.zeros((channel.inputs, channel.slots), dtype=np.complex128))
    replies = []
    for asked in range(1, 4):
        replies += [reply.residues for reply in channel.answer(query)]
        assert len(made) == asked + 1  # the first for the first reply, then one ahead of each
    for first, second in itertools.combinations(replies, 2):
        assert (first != second).mean() > 0.99


@pytest.mark.parametrize("backend", BACKENDS)
def test_flooding_adds_the_noise_that_is_stated(plan: Plan, backend: str) -> None:
    strong = replace(plan, privacy=FunctionPrivacy(flooding_std=0.02))
    channel = PlanChannel(strong, backend=backend)
    zeros = np.zeros((channel.inputs, channel.slots), dtype=np.complex128)
    replies = np.stack([channel.ask(zeros).real for _ in range(4)])
    bits = flooding_bits(plan.params.n, 0.02, plan.reply_scale)
    stated = flooding_std(plan.params.n, bits, plan.reply_scale)
    assert 0.01 < stated <= 0.02
    assert replies.std(axis=0, ddof=1).mean() / stated == pytest.approx(0.92, abs=0.1)


def test_the_default_stays_within_the_promise() -> None:
    for bits in (8, 10, 12):
        std = FunctionPrivacy.for_precision(bits).flooding_std
        assert flooding_std(8192, flooding_bits(8192, std, 2.0**28), 2.0**28) <= 2.0**-bits / 2


@pytest.mark.parametrize("std", [-1.0, float("nan"), float("inf"), 2.0**21])
def test_absurd_flooding_is_refused(std: float) -> None:
    with pytest.raises(ParameterError):
        FunctionPrivacy(flooding_std=std)


def test_uniform_fills_its_range_and_no_more() -> None:
    drawn = uniform(1 << 16, 8)
    assert set(np.unique(drawn)) == set(range(-8, 8))
    assert abs(float(drawn.mean()) + 0.5) < 0.1


def test_records_are_charged_twice_without_real_parts(plan: Plan) -> None:
    assert plan.records_charged == plan.batch
    complex_plan = replace(plan, privacy=FunctionPrivacy(real_part=False))
    assert complex_plan.records_charged == 2 * plan.batch


def test_the_report_states_the_price(plan: Plan) -> None:
    report = compile_report(
        plan, zoo.sample("digits-mlp", 16), rng=np.random.default_rng(0), records=2
    )
    assert 0 < report.privacy_ms < 5
    assert 0 < report.flooding_error_std <= plan.privacy.flooding_std
    assert "function privacy" in report.text()


def test_heavier_plans_agree_on_zeros(plan: Plan) -> None:
    zeros = np.zeros((1, plan.params.slots), dtype=np.complex128)
    first, second = (PlanChannel(p).ask(zeros).real for p in (plan, heavier(plan)))
    assert np.abs(first - second).max() < 2.0**-8
