"""Which torch layers and calls the tracer knows to be affine or elementwise, and remedies."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import fx, nn

from he_infer.activations.convert.sites import ELEMENTWISE

LINEAR_MODULES: Final[tuple[type[nn.Module], ...]] = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
    nn.Unflatten,
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.AlphaDropout,
    nn.ZeroPad1d,
    nn.ZeroPad2d,
    nn.ConstantPad1d,
    nn.ConstantPad2d,
    nn.ReflectionPad1d,
    nn.ReflectionPad2d,
    nn.ReplicationPad2d,
    nn.Upsample,
    nn.UpsamplingNearest2d,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.ChannelShuffle,
)

ELEMENTWISE_MODULES: Final[tuple[type[nn.Module], ...]] = (*ELEMENTWISE, nn.PReLU)

_ELEMENTWISE_NAMES: Final = (
    "relu relu6 leaky_relu elu selu celu gelu silu sigmoid tanh softplus hardswish hardsigmoid "
    "hardtanh mish softsign logsigmoid abs exp sin cos"
).split()
_LINEAR_NAMES: Final = (
    "flatten reshape view permute transpose movedim squeeze unsqueeze contiguous mean sum "
    "avg_pool1d avg_pool2d adaptive_avg_pool1d adaptive_avg_pool2d linear conv1d conv2d "
    "conv_transpose1d conv_transpose2d batch_norm pad interpolate cat concat add sub neg mul div "
    "dropout flip roll matmul float double to type_as detach clone unflatten pixel_shuffle narrow "
    "rsub truediv getitem iadd isub imul"
).split()


def _calls(names: Sequence[str]) -> frozenset[Any]:
    """The torch, torch.nn.functional, operator and method spellings of the names."""
    spaces: tuple[Any, ...] = (torch, F, operator, torch._C._nn)
    found: set[Any] = set(names)  # methods are called by name
    found.update(getattr(space, n) for n in names for space in spaces if hasattr(space, n))
    return frozenset(found)


ELEMENTWISE_CALLS: Final = _calls(_ELEMENTWISE_NAMES)
LINEAR_CALLS: Final = _calls(_LINEAR_NAMES)

_REPLACE_POOL: Final = "replace it with average pooling and fine-tune"
_CLIENT_SIDE: Final = "return the logits; the client applies it to what it decrypts"
_NORM: Final = "use batch normalisation: its statistics are constants at inference"
REMEDIES: Final[Mapping[str, str]] = {
    "maxpool1d": _REPLACE_POOL,
    "maxpool2d": _REPLACE_POOL,
    "max_pool2d": _REPLACE_POOL,
    "adaptivemaxpool2d": _REPLACE_POOL,
    "adaptive_max_pool2d": _REPLACE_POOL,
    "softmax": _CLIENT_SIDE,
    "logsoftmax": _CLIENT_SIDE,
    "log_softmax": _CLIENT_SIDE,
    "argmax": _CLIENT_SIDE,
    "max": _CLIENT_SIDE,
    "layernorm": _NORM,
    "groupnorm": _NORM,
    "instancenorm2d": _NORM,
    "rmsnorm": _NORM,
    "layer_norm": _NORM,
    "group_norm": _NORM,
    "dropout": "pass training=self.training, so that it is the identity in evaluation mode",
    "mul": "products of two computed tensors are limited to squares: use x * x or a linear layer",
    "matmul": "products of two computed tensors are not compiled: use fixed weights",
    "prelu": "use one parameter for all channels, or a polynomial activation",
    "lstm": "recurrent layers are too deep: use a convolution over time",
    "gru": "recurrent layers are too deep: use a convolution over time",
    "multiheadattention": "attention multiplies computed tensors: use linear token mixing",
    "embedding": "look the embedding up on the client and send the vectors",
}


def name_of(node: fx.Node, traced: fx.GraphModule) -> str:
    """The layer's class name, or the function's or method's own name."""
    if node.op == "call_module":
        return type(traced.get_submodule(str(node.target))).__name__
    target: str | Callable[..., Any] = node.target
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))
