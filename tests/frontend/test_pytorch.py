"""A traced graph computes what the torch model computes; what cannot be compiled is listed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from he_infer.activations.layer import PolynomialActivation
from he_infer.compiler.intervals import calibrate
from he_infer.errors import CompileError, InputError, UnsupportedLayersError
from he_infer.frontend.pytorch import trace
from he_infer.plan import ir


class Function(nn.Module):
    """A model whose forward is one function, with the layers that it needs."""

    def __init__(self, forward: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def records(shape: tuple[int, ...], count: int = 9, seed: int = 0) -> ir.FloatArray:
    return np.random.default_rng(seed).normal(size=(count, *shape))


def traced(model: nn.Module, shape: tuple[int, ...]) -> ir.Graph:
    """Trace, then compare with the model on records that the tracer has not seen."""
    graph = trace(model, records(shape))
    fresh = records(shape, count=11, seed=1)
    with torch.no_grad():
        expected = model.double().eval()(torch.from_numpy(fresh)).reshape(len(fresh), -1).numpy()
    got = ir.evaluate(graph, fresh.reshape(len(fresh), -1))[graph.output.name]
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)
    return graph


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.integers(1, 2),
    groups=st.integers(1, 3),
    bias=st.booleans(),
)
def test_convolutions_of_every_geometry(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: int,
    groups: int,
    bias: bool,
) -> None:
    if any(dilation * (k - 1) + 1 > s + 2 * p for k, s, p in zip(kernel, size, padding)):  # noqa: B905
        return
    torch.manual_seed(0)
    layer = nn.Conv2d(
        groups, 2 * groups, kernel, stride, padding, dilation=dilation, groups=groups, bias=bias
    )
    graph = traced(layer, (groups, *size))
    assert isinstance(graph.output, ir.Affine)


def _batch_norm() -> nn.Module:
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert tensor is not None
            tensor.copy_(torch.rand(3) + 0.2)
    return norm


def _polynomial_activation(degree: int, channels: int) -> PolynomialActivation:
    return PolynomialActivation(
        torch.randn(channels, degree + 1), center=torch.randn(channels), radius=2.5
    )


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 4), (6,)),
    "linear on the last dimension": (lambda: nn.Linear(4, 3), (5, 4)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, padding=1), (2, 8)),
    "circular padding": (lambda: nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), (1, 5, 5)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 1, 3, stride=2), (2, 4, 4)),
    "batch norm": (_batch_norm, (3, 4, 4)),
    "average pool": (lambda: nn.AvgPool2d(3, stride=2, padding=1), (2, 7, 7)),
    "uncounted padding": (
        lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False, ceil_mode=True),
        (1, 6, 6),
    ),
    "adaptive pool": (lambda: nn.AdaptiveAvgPool2d((3, 2)), (2, 7, 5)),
    "global pool": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), (4, 6, 6)),
    "dropout": (lambda: nn.Sequential(nn.Dropout(0.9), nn.Linear(5, 2)), (5,)),
    "upsampling": (lambda: nn.Upsample(scale_factor=2), (1, 3, 3)),
    "padding with a constant": (lambda: nn.ConstantPad2d(1, 0.7), (1, 3, 3)),
    "relu in place": (lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)), (4,)),
    "shared polynomial": (lambda: _polynomial_activation(4, 1), (3, 5)),
    "polynomial per channel": (lambda: _polynomial_activation(3, 4), (4, 2, 3)),
    "quadratic": (lambda: PolynomialActivation.quadratic(6), (6,)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    torch.manual_seed(1)
    build, shape = LAYERS[name]
    traced(build(), shape)


CALLS: dict[str, tuple[Callable[[nn.Module, Tensor], Tensor], tuple[int, ...]]] = {
    "flatten": (lambda m, x: torch.flatten(x, 1), (2, 3, 4)),
    "view by size()": (lambda m, x: x.view(x.size(0), -1), (2, 3, 4)),
    "view by shape": (lambda m, x: x.view(x.shape[0], -1), (2, 3, 4)),
    "reshape by size()[0]": (lambda m, x: x.reshape(x.size()[0], 6, 4), (2, 3, 4)),
    "reshape by len of shape": (lambda m, x: x.reshape(-1, 24), (2, 3, 4)),
    "permute": (lambda m, x: x.permute(0, 2, 3, 1).flatten(1), (2, 3, 4)),
    "mean": (lambda m, x: x.mean(dim=(2, 3)), (2, 3, 4)),
    "slice": (lambda m, x: x[:, :, 1:, ::2], (2, 3, 4)),
    "pad": (lambda m, x: F.pad(x, (1, 0, 2, 1), value=0.5), (2, 3, 4)),
    "concatenation": (lambda m, x: torch.cat([x, 2 * x[:, :1]], dim=1), (2, 3, 4)),
    "affine arithmetic": (lambda m, x: 3 - (x + 1) / 2, (5,)),
    "sum of a tensor with itself": (lambda m, x: x + x, (5,)),
    "square by product": (lambda m, x: x * x, (5,)),
    "torch.square": (lambda m, x: torch.square(x), (5,)),
    "pow 2": (lambda m, x: x.pow(2), (5,)),
    "cube": (lambda m, x: x**3, (2, 2)),
    "x⁴ − x": (lambda m, x: x**4 - x, (5,)),
    "a product of two polynomials": (lambda m, x: (x - 2) * (x * x + 1), (5,)),
    "a quadratic written out": (lambda m, x: 0.3 * x * x - 0.5 * x + 1, (5,)),
    "relu": (lambda m, x: F.relu(x), (5,)),
    "relu in place": (lambda m, x: F.relu(2 * x, inplace=True), (5,)),
    "relu by method": (lambda m, x: (x - 1).relu(), (5,)),
    "leaky relu": (lambda m, x: F.leaky_relu(x, 0.2), (5,)),
    "sigmoid, tanh, silu, gelu": (
        lambda m, x: torch.sigmoid(x) + torch.tanh(x) - F.silu(x) + F.gelu(x),
        (5,),
    ),
    "dropout with training=self.training": (
        lambda m, x: F.dropout(x, 0.5, training=m.training),
        (5,),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_functional_calls(name: str) -> None:
    forward, shape = CALLS[name]
    traced(Function(forward).eval(), shape)


@pytest.mark.parametrize("in_place", [False, True])
def test_residual_additions(in_place: bool) -> None:
    def forward(m: Function, x: Tensor) -> Tensor:
        out = F.silu(m.first(x))  # type: ignore[operator]
        out = m.second(out)  # type: ignore[operator]
        if in_place:
            out += x
        else:
            out = out + x
        return m.last(out.flatten(1))  # type: ignore[operator, no-any-return]

    torch.manual_seed(2)
    model = Function(
        forward,
        first=nn.Conv2d(2, 3, 3, padding=1),
        second=nn.Conv2d(3, 2, 3, padding=1),
        last=nn.Linear(2 * 9 * 9, 3),  # more features than one probe batch holds
    )
    traced(model, (2, 9, 9))


def test_calibration_sees_what_an_activation_in_place_reads() -> None:
    graph = trace(nn.Sequential(nn.Identity(), nn.ReLU(inplace=True)), records((4,), count=200))
    (interval,) = calibrate(graph, records((4,), count=200)).values()
    assert interval.low < -2 and interval.high > 2


def test_a_model_in_training_mode_is_traced_in_evaluation_mode_and_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    trace(model, records((4,)))
    assert model.training and model[0].weight.dtype == torch.float32


def test_layers_that_do_not_reach_the_output_are_dropped() -> None:
    def forward(m: Function, x: Tensor) -> Tensor:
        m.unused(x)  # type: ignore[operator]
        return m.used(x)  # type: ignore[operator, no-any-return]

    graph = trace(Function(forward, unused=nn.Linear(4, 9), used=nn.Linear(4, 2)), records((4,)))
    assert [type(node) for node in graph] == [ir.Input, ir.Affine]


# -- refusals ----------------------------------------------------------------------------


def test_every_unsupported_layer_is_listed_with_its_path_and_a_remedy() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.GroupNorm(2, 4)
            self.pool = nn.MaxPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(self.norm(x))  # type: ignore[no-any-return]

    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), Block(), nn.Flatten(), nn.Linear(64, 3), nn.Softmax(1)
    )
    with pytest.raises(UnsupportedLayersError) as refused:
        trace(model, records((1, 8, 8)))
    found = {problem.path: problem.remedy for problem in refused.value.problems}
    assert set(found) == {"1.norm", "1.pool", "4"}
    assert "batch normalisation" in found["1.norm"]
    assert "average pooling" in found["1.pool"]
    assert "client" in found["4"]
    for path in found:
        assert f"{path}: " in str(refused.value)


REFUSED: dict[str, tuple[Callable[[nn.Module, Tensor], Tensor], str]] = {
    "a product of two tensors": (lambda m, x: x * torch.flip(x, [1]), "squares"),
    "a quotient": (lambda m, x: 1 / x, "replace it"),
    "a quotient of two tensors": (lambda m, x: x / (x + 1), "replace it"),
    "dropout that stays on": (lambda m, x: F.dropout(x, 0.5), "training=self.training"),
    "a root": (lambda m, x: x**0.5, "replace it"),
    "a maximum": (lambda m, x: F.max_pool1d(x, 2), "replace it"),
    "softmax": (lambda m, x: F.softmax(x, dim=1), "client"),
    "the mean over the batch": (lambda m, x: x - x.mean(dim=0), "dimension 0"),
    "two outputs": (lambda m, x: x.chunk(2, dim=1)[0], "one tensor"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_calls_without_an_encrypted_equivalent(name: str) -> None:
    forward, remedy = REFUSED[name]
    with pytest.raises(UnsupportedLayersError, match=remedy):
        trace(Function(forward).eval(), records((6,)))


def test_an_output_that_does_not_depend_on_the_input() -> None:
    model = Function(lambda m, x: m.layer.weight, layer=nn.Linear(3, 3))
    with pytest.raises(UnsupportedLayersError, match="one tensor computed from its input"):
        trace(model, records((3,)))


def test_control_flow_that_depends_on_the_data() -> None:
    with pytest.raises(UnsupportedLayersError, match="control flow depends on the data"):
        trace(Function(lambda m, x: x if x.sum() > 0 else -x), records((6,)))


@pytest.mark.parametrize("shape", [(5,), (7,), (2, 3, 5)])
def test_a_sample_of_the_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="does not accept records of shape"):
        trace(nn.Sequential(nn.Flatten(), nn.Linear(6, 2)), records(shape))


def test_records_that_are_rolled_into_each_other_are_noticed() -> None:
    with pytest.raises(CompileError, match="not linear"):
        trace(Function(lambda m, x: torch.roll(x, 1, dims=0)), records((6,)))


def test_weights_that_are_not_finite() -> None:
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight[0, 0] = float("nan")
    with pytest.raises(CompileError, match="not finite"):
        trace(layer, records((3,)))
