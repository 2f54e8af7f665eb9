"""Noise, scaling and shift: what clients decrypt, on every backend, and what refuses.

What a server draws is the operating system's and cannot be seeded. So bars on statistics lie six
standard deviations from what is right, and p-values are compared with 10^-6.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from attacks.oracles.channels import PlanChannel
from he_infer import native, zoo
from he_infer.cli.main import main
from he_infer.compiler.pipeline import compile
from he_infer.compiler.report import compile_report, simulate_query
from he_infer.errors import DefenceError, DepthError, ParameterError
from he_infer.params import CKKSParams
from he_infer.plan.file import load_plan, save_plan
from he_infer.plan.plan import Plan
from he_infer.plan.privacy import FunctionPrivacy, noise_bound
from he_infer.runtime.backends.plain import PlainBackend
from he_infer.runtime.describe import describe
from he_infer.runtime.executor import run_on
from he_infer.runtime.sampling import uniform, unit

Slots = NDArray[np.float64]
BACKENDS = [
    "simulated",
    "seal",
    pytest.param("native", marks=pytest.mark.skipif(native.core is None, reason="not built")),
]
SPREAD, SHIFT, NOISE = 2.0, 8.0, 0.5


def plan_of(batch: int = 1, *, flooding: float = 2.0**-11, **strengths: float) -> Plan:
    privacy = FunctionPrivacy(flooding_std=flooding, **strengths)  # type: ignore[arg-type]
    sample = zoo.sample("digits-mlp", 256)
    return compile(zoo.load("digits-mlp"), sample, name="digits", batch=batch, privacy=privacy)


def records(count: int) -> NDArray[np.float64]:
    return np.asarray(zoo.sample("digits-mlp", count), dtype=np.float64)


def exact(inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    import torch

    with torch.no_grad():
        model = zoo.load("digits-mlp").double()
        return np.asarray(model(torch.from_numpy(inputs)).numpy())


def replies(plan: Plan, inputs: NDArray[np.float64], backend: str, count: int) -> list[Slots]:
    """Slots (ciphertexts, N/2) of ``count`` replies to the same records."""
    if backend == "simulated":
        rng = np.random.default_rng(7)
        return [simulate_query(plan, inputs, rng=rng) for _ in range(count)]
    channel = PlanChannel(plan, backend=backend)
    slots = plan.client_spec.pack(inputs).astype(np.complex128)
    return [channel.ask(slots).real for _ in range(count)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch", [1, 16])
def test_factors_are_one_to_a_record_and_keep_labels(backend: str, batch: int) -> None:
    plan = plan_of(batch, scaling=SPREAD)
    inputs = records(batch)
    wanted = exact(inputs)
    seen = []
    for slots in replies(plan, inputs, backend, 12 if batch == 1 else 2):
        got = plan.client_spec.unpack(slots, batch)
        factors = (got * wanted).sum(axis=1) / (wanted**2).sum(axis=1)
        assert np.abs(got - factors[:, None] * wanted).max() < 0.05
        seen.extend(factors)
    low, high = min(seen), max(seen)
    assert 1 / SPREAD - 0.01 <= low and high <= SPREAD + 0.01 and high / low > 1.2
    assert len(np.unique(np.round(seen, 3))) > len(seen) // 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch", [1, 16])
def test_shifts_are_one_to_a_record_and_lie_on_outputs_only(backend: str, batch: int) -> None:
    plan = plan_of(batch, shift=SHIFT)
    inputs = records(batch)
    shifts = []
    for slots in replies(plan, inputs, backend, 16 if batch == 1 else 1):
        difference = plan.client_spec.unpack(slots, batch) - exact(inputs)
        assert np.ptp(difference, axis=1).max() < 0.05
        shifts.extend(difference.mean(axis=1))
        # Slot = feature slot · batch + record: what lies behind the outputs within a period.
        period = slots.reshape(-1, plan.reply_period // batch, batch)
        assert np.abs(period[:, 10:]).max() < 0.05
        assert np.ptp(period, axis=0).max() < 0.05  # copies tell the same
    # 16 uniform draws lie within a quarter of their interval with probability 16/4^15 = 1.5e-8.
    assert np.abs(shifts).max() < SHIFT + 0.05 and np.ptp(shifts) > SHIFT / 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_averaging_the_copies_in_a_reply_takes_no_noise_away(backend: str) -> None:
    plan = plan_of(noise_std=NOISE)
    inputs = records(1)
    wanted = exact(inputs)[0]
    found = []
    for slots in replies(plan, inputs, backend, 40):
        copies = slots.reshape(-1, plan.reply_period)[:, :10]
        found.append(copies.mean(axis=0) - wanted)
    errors = np.array(found)
    # 400 draws: 21 %, where averaging 256 independent copies would leave a sixteenth.
    assert np.std(errors) == pytest.approx(NOISE, rel=6 / (2 * errors.size) ** 0.5)
    assert abs(errors.mean()) < 6 * NOISE / errors.size**0.5


def test_flooding_alone_is_averaged_away_by_copies() -> None:
    # Why noise is not flooding of a larger width: 256 copies take fifteen sixteenths of it.
    plan = plan_of(flooding=NOISE)
    inputs = records(1)
    slots = replies(plan, inputs, "simulated", 20)
    averaged = [s.reshape(-1, plan.reply_period)[:, :10].mean(axis=0) for s in slots]
    assert np.std(np.array(averaged) - exact(inputs)[0]) < NOISE / 8


@pytest.mark.parametrize("period", [16, 4096])
def test_sums_of_uniform_coefficients_are_normal_with_the_stated_deviation(period: int) -> None:
    from he_infer.runtime.encoding import embed

    n, scale = 8192, 2.0**28
    bound = noise_bound(period, NOISE, scale)
    draws = 4096 // period * 8
    found = []
    for _ in range(draws):
        slots = embed(uniform(n, bound, stride=n // 2 // period), n) / scale
        assert np.abs(slots - np.tile(slots[:period], n // 2 // period)).max() < 1e-6
        found.append(slots[:period].real)
    values = np.concatenate(found)
    assert values.std() == pytest.approx(NOISE, rel=0.02)
    # Uniform variables have an excess kurtosis of −1.2, a weighted sum of 2 · period far less.
    assert abs(stats.kurtosis(values)) < 1.2 * 1.5 / (2 * period) + 6 * (24 / len(values)) ** 0.5
    assert stats.kstest(values / NOISE, "norm").pvalue > 1e-6


def test_all_of_it_at_once_keeps_the_order_of_steps() -> None:
    plan = plan_of(16, noise_std=0.05, scaling=SPREAD, shift=SHIFT)
    inputs = records(16)
    wanted = exact(inputs)
    (slots,) = replies(plan, inputs, "seal", 1)
    got = plan.client_spec.unpack(slots, 16)
    for answer, row in zip(got, wanted, strict=True):
        factor, shift = np.polyfit(row, answer, 1)
        assert 0.45 < factor < 2.1 and abs(shift) < SHIFT + 0.2
        assert np.std(answer - factor * row - shift) < 0.12


def test_the_plain_backend_stands_in_the_middle() -> None:
    plan = plan_of(noise_std=NOISE, scaling=SPREAD, shift=SHIFT)
    backend, spec = PlainBackend(plan.params, steps=plan.rotation_steps), plan.client_spec
    inputs = records(1)
    queries = [backend.encrypt(row, scale=plan.scale) for row in spec.pack(inputs)]
    slots = np.stack([backend.decrypt(c).real for c in run_on(backend, plan, queries)])
    np.testing.assert_allclose(spec.unpack(slots, 1), exact(inputs), atol=1e-6)


def test_a_defended_plan_is_another_plan_and_says_what_it_does(tmp_path: Path) -> None:
    bare, plan = plan_of(), plan_of(noise_std=NOISE, scaling=SPREAD, shift=SHIFT)
    assert bare.digest != plan.digest
    save_plan(plan, f"{tmp_path}/plan.heplan")
    again = load_plan(f"{tmp_path}/plan.heplan")
    assert again.privacy == plan.privacy and again.digest == plan.digest
    assert "factors of 1/2 … 2, shifts up to ±8, noise of std 0.5" in describe(plan)
    assert plan.params.max_level == bare.params.max_level
    report = compile_report(plan, records(16), rng=np.random.default_rng(0), records=4)
    assert report.defences_bits == pytest.approx(10 + np.log2((6.32 * 2 + 11) / 6.32), abs=0.1)
    assert 0 < report.defences_ms < 2 and "no level" in report.text()
    assert 0.2 < report.predicted_error_std < 0.8  # noise is an error, a factor is none
    quiet = compile_report(bare, records(16), rng=np.random.default_rng(0), records=2)
    assert quiet.defences == "" and quiet.defences_bits == 0 and quiet.defences_ms == 0


# -- refusals ------------------------------------------------------------------------------


def test_what_the_modulus_cannot_carry_is_refused_with_the_way_out() -> None:
    params = plan_of().params  # a first prime of 34 bits
    with pytest.raises(DefenceError, match="lower precision_bits, scaling, shift or noise_std"):
        compile(
            zoo.load("digits-mlp"),
            records(64),
            params=params,
            privacy=FunctionPrivacy(scaling=SPREAD),
        )
    with pytest.raises(DefenceError, match="than any ring has to spare"):
        compile(
            zoo.load("digits-mlp"),
            records(64),
            batch=256,
            precision_bits=22,
            privacy=FunctionPrivacy(scaling=256.0, shift=2.0**19),
        )
    with pytest.raises(DefenceError, match="raise flooding_std"):
        plan_of(flooding=2.0**-26, scaling=SPREAD)


def test_a_graph_that_is_too_deep_anyway_says_that() -> None:
    with pytest.raises(DepthError) as caught:
        compile(
            zoo.load("digits-mlp"),
            records(64),
            precision_bits=48,
            privacy=FunctionPrivacy(scaling=SPREAD),
        )
    assert not isinstance(caught.value, DefenceError)


@pytest.mark.parametrize(
    "strengths",
    [
        {"scaling": 0.5},
        {"scaling": float("nan")},
        {"scaling": 1e4},
        {"shift": -1.0},
        {"noise_std": float("inf")},
        {"noise_std": 0.1, "flooding_std": 0.0},
        {"shift": 1.0, "real_part": False},
        {"scaling": 2.0, "spills": True},
    ],
)
def test_absurd_strengths_are_refused(strengths: dict[str, float]) -> None:
    with pytest.raises(ParameterError):
        FunctionPrivacy(**strengths)  # type: ignore[arg-type]


def test_units_are_uniform() -> None:
    drawn = unit(1 << 15)
    assert drawn.min() >= 0 and drawn.max() < 1
    assert stats.kstest(drawn, "uniform").pvalue > 1e-6


def test_unperturbed_plans_are_what_they_were() -> None:
    params = plan_of().params
    assert isinstance(params, CKKSParams) and params.primes[0].bit_length() == 34
    plan = plan_of(noise_std=NOISE)
    assert replace(plan, privacy=plan.privacy.unperturbed()).reply_scale == plan.reply_scale


@pytest.mark.slow
def test_the_command_compiles_with_defences_and_says_their_price(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "plan.heplan")
    words = ["compile", "--model", "digits-mlp", "--out", out, "--json"]
    assert main([*words, "--scaling", "2", "--shift", "8", "--noise-std", "0.25"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["defences"] == "factors of 1/2 … 2, shifts up to ±8, noise of std 0.25"
    assert found["defences_bits"] > 11 and found["predicted_label_agreement"] > 0.9
    assert load_plan(out).privacy.shift == 8
    assert main([*words, "--scaling", "0.5"]) != 0
