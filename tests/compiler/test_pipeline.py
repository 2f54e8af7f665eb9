"""From a model to answers: networks nobody tuned the compiler for, on every backend."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from he_infer import zoo
from he_infer.activations import approx
from he_infer.activations.layer import PolynomialActivation
from he_infer.compiler.levels import choose_params
from he_infer.compiler.pipeline import Approximation
from he_infer.compiler.pipeline import compile as compile_model
from he_infer.compiler.report import simulate
from he_infer.errors import (
    CompileError,
    DepthError,
    InputError,
    MismatchError,
    ParameterError,
)
from he_infer.keys.secret import SecretKeys
from he_infer.params import CKKSParams
from he_infer.plan import ir
from he_infer.plan.plan import Plan
from he_infer.runtime.backends.plain import PlainBackend
from he_infer.runtime.backends.seal import SealBackend
from he_infer.runtime.executor import Executor, run_on
from he_infer.zoo.architectures import build, quadratic

DEGREE_5 = Approximation(method=approx.least_squares, degree=5)


class Residual(nn.Module):
    """Average pooling, a residual block, batch norm, SiLU and ReLU; nothing the zoo has."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.inner = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.stem(x)))
        x = F.avg_pool2d(x + self.inner(x), 3)
        x = torch.relu(x)
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


def residual() -> nn.Module:
    torch.manual_seed(7)
    model = Residual()
    assert model.norm.running_mean is not None and model.norm.running_var is not None
    with torch.no_grad():
        model.norm.running_mean.uniform_(-0.3, 0.3)
        model.norm.running_var.uniform_(0.2, 0.5)
    return model.eval()


def images(count: int, shape: tuple[int, ...] = (2, 6, 6), seed: int = 0) -> ir.FloatArray:
    """Samples (seed 0) reach from 0 to 1; later records stay just inside."""
    inset = 0.02 if seed else 0.0
    return np.random.default_rng(seed).uniform(inset, 1 - inset, (count, *shape))


SAMPLE = images(200)


def exact(plan: Plan, records: ir.FloatArray) -> ir.FloatArray:
    """What the polynomial network computes in float64."""
    return ir.evaluate(plan.graph, records.reshape(len(records), -1))[plan.graph.output.name]


def torch_answers(model: nn.Module, records: ir.FloatArray) -> ir.FloatArray:
    with torch.no_grad():
        return np.asarray(model.double()(torch.from_numpy(records)).numpy())


def on_plain(plan: Plan, records: ir.FloatArray) -> ir.FloatArray:
    backend, spec = PlainBackend(plan.params, steps=plan.rotation_steps), plan.client_spec
    answers = []
    for start in range(0, len(records), plan.batch):
        part = records[start : start + plan.batch]
        inputs = [backend.encrypt(s, scale=spec.input_scale) for s in spec.pack(part)]
        results = run_on(backend, plan, inputs)
        assert {c.level for c in results} == {spec.output_level}
        slots = np.stack([backend.decrypt(c).real for c in results])
        answers.append(spec.unpack(slots, len(part)))
    return np.concatenate(answers)


def on_seal(plan: Plan, records: ir.FloatArray) -> ir.FloatArray:
    """One query, encrypted and decrypted by a client with fresh keys."""
    secret, spec = SecretKeys.generate(plan.params), plan.client_spec
    executor = Executor(plan, SealBackend(plan.params))
    keys = executor.load_keys(secret.evaluation_keys(spec.key_levels))
    replies = executor.run(secret.encrypt(spec.pack(records), spec.input_scale), keys)
    assert {(c.level, c.scale) for c in replies} == {(spec.output_level, spec.output_scale)}
    slots = np.stack([secret.decrypt(reply).real for reply in replies])
    return spec.unpack(slots, len(records))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compile_model(residual(), SAMPLE, name="residual", approximation=DEGREE_5)


# -- agreement -----------------------------------------------------------------------------


def test_the_compiled_network_follows_the_model(plan: Plan) -> None:
    records = images(100, seed=1)
    expected = torch_answers(residual(), records)
    got = on_plain(plan, records[:4])
    np.testing.assert_allclose(got, exact(plan, records[:4]), atol=1e-9)
    # ReLU bends where its inputs are: degree 5 leaves a few per cent of the logits' spread.
    assert np.abs(exact(plan, records) - expected).max() < 0.2 * expected.std()


def test_simulation_predicts_small_errors(plan: Plan) -> None:
    records = images(3, seed=1)
    errors = simulate(plan, records, rng=np.random.default_rng(0)) - exact(plan, records)
    assert 1e-7 < np.abs(errors).max() < 2.0**-8  # 10 bits were asked for


@pytest.mark.slow
def test_the_network_on_seal(plan: Plan) -> None:
    records = images(1, seed=1)
    assert np.abs(on_seal(plan, records) - exact(plan, records)).max() < 2.0**-8


@pytest.mark.parametrize("batch", [1, 4, 64, "slots"])
def test_every_batch_size_gives_the_same_answers(batch: int | str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2),
        PolynomialActivation.quadratic(2),
        nn.Flatten(),
        nn.Linear(8, 3),
    ).eval()
    sample = images(100, (1, 5, 5))
    size = 4096 if batch == "slots" else int(batch)
    plan = compile_model(model, sample, batch=size)
    assert plan.params.n == 8192
    records = images(min(size + 1, 70), (1, 5, 5), seed=3)
    expected = torch_answers(model, records)
    np.testing.assert_allclose(on_plain(plan, records), expected, atol=1e-9)
    if batch == "slots":
        assert plan.rotation_steps == (0,)  # conjugation of the reply alone
        assert plan.client_spec.n_input_ciphertexts == 25


@pytest.mark.parametrize("batch", [1, 16])
def test_a_small_network_on_seal(batch: int) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(9, 6), nn.SiLU(), nn.Linear(6, 3)).eval()
    plan = compile_model(model, images(100, (9,)), batch=batch)
    records = images(batch, (9,), seed=2)
    assert np.abs(on_seal(plan, records) - exact(plan, records)).max() < 2.0**-8


@pytest.mark.parametrize(("degree", "depth"), [(2, 2), (3, 4), (5, 5), (7, 5), (9, 6)])
def test_activation_degrees_cost_the_levels_they_should(degree: int, depth: int) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(9, 6), nn.SiLU(), nn.Linear(6, 3)).eval()
    approximation = Approximation(method=approx.least_squares, degree=degree)
    plan = compile_model(model, images(100, (9,)), approximation=approximation)
    assert plan.params.max_level == depth
    records = images(3, (9,), seed=2)
    np.testing.assert_allclose(on_plain(plan, records), exact(plan, records), atol=1e-9)


def test_dead_and_linear_channels_and_vanishing_weights() -> None:
    """Features that no weight reaches, at the batch size where each has its own ciphertext."""
    torch.manual_seed(3)
    first, last = nn.Linear(6, 5), nn.Linear(5, 4)
    act = PolynomialActivation(
        torch.tensor([[0.1, 0.5, 0.2], [0, 1, 0], [0.3, 0, 0], [0, 0, 0], [0, 0.2, -0.5]])
    )
    with torch.no_grad():
        first.weight[0] = 0
        first.weight[1, :3] = 1e-30
        last.weight[2] = 0
    model = nn.Sequential(first, act, last).eval()
    for batch in (1, 4096):
        plan = compile_model(model, images(100, (6,)), batch=batch)
        records = images(min(batch, 40), (6,), seed=1)
        expected = torch_answers(model, records)
        np.testing.assert_allclose(on_plain(plan, records), expected, atol=1e-9)
        assert np.abs(on_seal(plan, records) - expected).max() < 2.0**-8


def test_a_polynomial_with_vanishing_coefficients_on_seal() -> None:
    """x⁴ on a symmetric interval has no odd coefficients: nothing must become transparent."""

    class Fourth(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x**4

    sample = images(100, (4,)) * 2 - 1
    plan = compile_model(Fourth(), np.concatenate([sample, -sample]))
    records = images(1, (4,), seed=1)
    assert np.abs(on_seal(plan, records) - records**4).max() < 2.0**-8


def test_inputs_and_layers_of_several_ciphertexts() -> None:
    torch.manual_seed(4)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        PolynomialActivation.quadratic(3),
        nn.Flatten(),
        nn.Linear(432, 130),
    ).eval()
    plan = compile_model(model, images(60, (1, 12, 12)), batch=64)
    feature_slots = plan.params.slots // 64
    layouts = plan.packing.layouts
    assert feature_slots == 64
    assert plan.client_spec.n_input_ciphertexts >= 2
    assert max(layout.ciphertexts for layout in layouts.values()) >= 7
    assert plan.client_spec.n_output_ciphertexts == 3
    records = images(64, (1, 12, 12), seed=5)
    np.testing.assert_allclose(on_plain(plan, records), torch_answers(model, records), atol=1e-9)


def test_the_tutorial_network_needs_few_rotation_keys() -> None:
    torch.manual_seed(5)
    model = build("tutorial-cnn", quadratic).eval()
    plan = compile_model(model, zoo.sample("tutorial-cnn", 64), name="tutorial-cnn")
    assert plan.params.n == 8192 and plan.params.max_level == 3
    assert plan.client_spec.n_input_ciphertexts == 1
    assert 0 < len(plan.rotation_steps) <= 25


def test_slots_outside_the_reply_hold_copies_of_outputs_or_nothing(plan: Plan) -> None:
    record = images(1, seed=9)
    backend, spec = PlainBackend(plan.params), plan.client_spec
    inputs = [backend.encrypt(s, scale=spec.input_scale) for s in spec.pack(record)]
    allowed = np.append(exact(plan, record)[0], 0.0)
    for reply in run_on(backend, plan, inputs):
        distance = np.abs(reply.value.real[:, None] - allowed).min(axis=1)
        assert distance.max() < 1e-9


# -- refusals ------------------------------------------------------------------------------


def linear() -> nn.Module:
    torch.manual_seed(6)
    return nn.Linear(4, 3)


def tower(depth: int) -> nn.Module:
    torch.manual_seed(6)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(3, 3), PolynomialActivation.quadratic(3)]
    return nn.Sequential(*layers, nn.Linear(3, 2)).eval()


def test_a_network_that_is_too_deep_is_told_the_largest_depth() -> None:
    with pytest.raises(DepthError, match=r"depth \d+ .*the most is depth (\d+) at N = 32768"):
        compile_model(tower(20), images(50, (3,)) - 0.5)


def test_a_precision_that_no_prime_offers() -> None:
    with pytest.raises(DepthError, match=r"at any depth.*lower precision_bits"):
        choose_params(1, precision_bits=32, output_bits=9)


@pytest.mark.parametrize("precision_bits", [8, 10, 16, 24, 29])
@pytest.mark.parametrize("output_bits", [1, 4, 9])
def test_the_largest_depth_that_is_named_is_the_largest(
    precision_bits: int, output_bits: int
) -> None:
    with pytest.raises(DepthError) as refused:
        choose_params(99, precision_bits=precision_bits, output_bits=output_bits)
    words = str(refused.value).split("the most is depth ")[1]
    most = int(words.split()[0])
    params, _ = choose_params(most, precision_bits=precision_bits, output_bits=output_bits)
    assert params.max_level == most and f"N = {params.n};" in str(refused.value)
    with pytest.raises(DepthError):
        choose_params(most + 1, precision_bits=precision_bits, output_bits=output_bits)


@pytest.mark.parametrize("depth", range(1, 16))
def test_chosen_parameters_are_secure_and_the_smallest(depth: int) -> None:
    params, bits = choose_params(depth, precision_bits=10, output_bits=4)
    assert params.security_bits >= 128 and params.max_level == depth
    assert all(q.bit_length() == bits for q in params.primes[1:])
    assert params.special_prime > params.primes[0]
    if params.n < 32768:
        more, _ = choose_params(depth, precision_bits=10, output_bits=4, least_n=2 * params.n)
        assert more.n == 2 * params.n


@pytest.mark.parametrize("batch", [0, -1, 3, 100])
def test_batches_that_are_no_powers_of_two(batch: int) -> None:
    with pytest.raises(ParameterError, match="power of two"):
        compile_model(linear(), images(20, (4,)), batch=batch)


def test_batches_beyond_the_slots() -> None:
    params = CKKSParams.from_bits(4096, [40, 30], special_bits=36)
    with pytest.raises(ParameterError, match="exceeds the 2048 slots"):
        compile_model(linear(), images(20, (4,)), batch=4096, params=params)
    with pytest.raises(ParameterError, match="exceeds the 16384 slots"):
        compile_model(linear(), images(20, (4,)), batch=32768)


def test_parameters_of_the_caller_are_used() -> None:
    params = CKKSParams.from_bits(8192, [50, 40], special_bits=55)
    plan = compile_model(linear(), images(20, (4,)), params=params)
    assert plan.params == params and plan.scale == 2.0**40
    longer = CKKSParams.from_bits(8192, [50, 40, 40], special_bits=55)
    with pytest.raises(DepthError, match="needs 1 levels, the parameters have 2"):
        compile_model(linear(), images(20, (4,)), params=longer)


def test_outputs_that_the_first_prime_cannot_hold() -> None:
    params = CKKSParams.from_bits(4096, [31, 30], special_bits=36)
    model = nn.Linear(4, 3)
    with torch.no_grad():
        model.weight.fill_(2.0**17)
    with pytest.raises(ParameterError, match="make that prime wider"):
        compile_model(model, images(20, (4,)), params=params)


def test_a_rejected_model_type() -> None:
    with pytest.raises(CompileError, match="cannot compile a dict"):
        compile_model({}, images(20, (4,)))


@pytest.mark.parametrize(
    "sample", [np.zeros((0, 4)), np.zeros(4), np.full((3, 4), np.nan), np.float64(1)]
)
def test_samples_that_are_no_batches(sample: ir.FloatArray) -> None:
    with pytest.raises(InputError):
        compile_model(linear(), sample)


@pytest.mark.parametrize("name", ["", "a b", "../up", "a" * 101])
def test_names_that_a_server_could_not_route(name: str) -> None:
    with pytest.raises(CompileError, match="name"):
        compile_model(linear(), images(20, (4,)), name=name)


def test_the_executor_refuses_what_was_made_for_another_plan() -> None:
    plan = compile_model(linear(), images(20, (4,)))
    other = CKKSParams.from_bits(8192, [50, 40], special_bits=55)
    with pytest.raises(MismatchError, match="other parameters"):
        Executor(plan, SealBackend(other))
    executor = Executor(plan, SealBackend(plan.params))
    secret, spec = SecretKeys.generate(plan.params), plan.client_spec
    assert spec.key_levels.steps
    with pytest.raises(MismatchError, match="lack"):
        executor.load_keys(secret.evaluation_keys(spec.key_levels.steps[:-1]))
    keys = executor.load_keys(secret.evaluation_keys(spec.key_levels))
    slots = spec.pack(images(1, (4,)))
    with pytest.raises(MismatchError, match="expected 1 ciphertexts, got 2"):
        executor.run(secret.encrypt(np.repeat(slots, 2, axis=0), spec.input_scale), keys)
    with pytest.raises(MismatchError, match="scale"):
        executor.run(secret.encrypt(slots, spec.input_scale * 2), keys)
