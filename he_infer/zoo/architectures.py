"""The networks of the zoo, described as data and built with either kind of activation.

    name          layers (→ output shape)                                   quadratics   depth
    tutorial-cnn  conv 1→4, 7x7/3 (4, 8, 8) · 256→64 · 64→10                  2            5
    mnist-lola    conv 1→5, 5x5/2, pad 1 (5, 13, 13) · 845→100 · 100→10       2            5
    mnist-deep    conv 1→16, 5x5/2, pad 1 (16, 13, 13)
                  · conv 16→32, 5x5/2, pad 1 (32, 6, 6) · 1152→64 · 64→10     3            7
    digits-mlp    64→32 · 32→10                                               1            3

Depth counts multiplications in sequence, plaintext or ciphertext. Batch norm precedes every
activation: it keeps ranges even across channels and folds into the layer before it.
The first shape is the TenSEAL tutorial's, the second LoLa's (Brutzkus et al., ICML 2019).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from torch import nn

from he_infer.activations.layer import PolynomialActivation

ActivationFactory = Callable[[int], nn.Module]


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """A square kernel that makes ``channels`` feature maps."""

    channels: int
    kernel: int
    stride: int
    padding: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Convolutions of a grey image, then dense layers.

    ``widths``: the number of features that the first dense layer takes, then the number that
    each dense layer gives. The last one gives the logits.
    """

    convolutions: tuple[Convolution, ...] = ()
    widths: tuple[int, ...]


ARCHITECTURES: Final[Mapping[str, Architecture]] = MappingProxyType(
    {
        "tutorial-cnn": Architecture(
            convolutions=(Convolution(channels=4, kernel=7, stride=3),), widths=(256, 64, 10)
        ),
        "mnist-lola": Architecture(
            convolutions=(Convolution(channels=5, kernel=5, stride=2, padding=1),),
            widths=(845, 100, 10),
        ),
        "mnist-deep": Architecture(
            convolutions=(
                Convolution(channels=16, kernel=5, stride=2, padding=1),
                Convolution(channels=32, kernel=5, stride=2, padding=1),
            ),
            widths=(1152, 64, 10),
        ),
        "digits-mlp": Architecture(widths=(64, 32, 10)),
    }
)


def quadratic(channels: int) -> nn.Module:
    """A learnable quadratic per channel: the zoo's own activation."""
    return PolynomialActivation.quadratic(channels)


def relu(channels: int) -> nn.Module:
    """The activation of the plain twin, for comparisons."""
    del channels  # a ReLU has no parameters
    return nn.ReLU()


def build(name: str, activation: ActivationFactory) -> nn.Sequential:
    """The network called ``name`` with fresh weights; (B, *input_shape) → (B, 10)."""
    architecture = ARCHITECTURES[name]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    block, channels = 0, 1
    for block, conv in enumerate(architecture.convolutions, start=1):
        layers[f"conv{block}"] = nn.Conv2d(
            channels, conv.channels, conv.kernel, conv.stride, conv.padding, bias=False
        )
        channels = conv.channels
        layers[f"norm{block}"] = nn.BatchNorm2d(channels)
        layers[f"act{block}"] = activation(channels)
    if architecture.convolutions:
        layers["flatten"] = nn.Flatten()
    *hidden, (last_inputs, logits) = pairwise(architecture.widths)
    for dense, (inputs, outputs) in enumerate(hidden, start=1):
        layers[f"dense{dense}"] = nn.Linear(inputs, outputs, bias=False)
        layers[f"norm{block + dense}"] = nn.BatchNorm1d(outputs)
        layers[f"act{block + dense}"] = activation(outputs)
    layers[f"dense{len(hidden) + 1}"] = nn.Linear(last_inputs, logits)
    return nn.Sequential(layers)
