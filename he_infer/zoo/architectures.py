"""The networks of the zoo, written once and instantiated with either kind of activation.

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
from types import MappingProxyType
from typing import Final

from torch import nn

from he_infer.activations.layer import PolynomialActivation

ActivationFactory = Callable[[int], nn.Module]


def quadratic(channels: int) -> nn.Module:
    """A learnable quadratic per channel: the zoo's own activation."""
    return PolynomialActivation.quadratic(channels)


def relu(channels: int) -> nn.Module:
    """The activation of the plain twin, for comparisons."""
    del channels  # a ReLU has no parameters
    return nn.ReLU()


def tutorial_cnn(activation: ActivationFactory) -> nn.Sequential:
    return _named(
        conv1=nn.Conv2d(1, 4, kernel_size=7, stride=3, bias=False),
        norm1=nn.BatchNorm2d(4),
        act1=activation(4),
        flatten=nn.Flatten(),
        dense1=nn.Linear(256, 64, bias=False),
        norm2=nn.BatchNorm1d(64),
        act2=activation(64),
        dense2=nn.Linear(64, 10),
    )


def mnist_lola(activation: ActivationFactory) -> nn.Sequential:
    return _named(
        conv1=nn.Conv2d(1, 5, kernel_size=5, stride=2, padding=1, bias=False),
        norm1=nn.BatchNorm2d(5),
        act1=activation(5),
        flatten=nn.Flatten(),
        dense1=nn.Linear(845, 100, bias=False),
        norm2=nn.BatchNorm1d(100),
        act2=activation(100),
        dense2=nn.Linear(100, 10),
    )


def mnist_deep(activation: ActivationFactory) -> nn.Sequential:
    return _named(
        conv1=nn.Conv2d(1, 16, kernel_size=5, stride=2, padding=1, bias=False),
        norm1=nn.BatchNorm2d(16),
        act1=activation(16),
        conv2=nn.Conv2d(16, 32, kernel_size=5, stride=2, padding=1, bias=False),
        norm2=nn.BatchNorm2d(32),
        act2=activation(32),
        flatten=nn.Flatten(),
        dense1=nn.Linear(1152, 64, bias=False),
        norm3=nn.BatchNorm1d(64),
        act3=activation(64),
        dense2=nn.Linear(64, 10),
    )


def digits_mlp(activation: ActivationFactory) -> nn.Sequential:
    return _named(
        dense1=nn.Linear(64, 32, bias=False),
        norm1=nn.BatchNorm1d(32),
        act1=activation(32),
        dense2=nn.Linear(32, 10),
    )


ARCHITECTURES: Final[Mapping[str, Callable[[ActivationFactory], nn.Sequential]]] = MappingProxyType(
    {
        "tutorial-cnn": tutorial_cnn,
        "mnist-lola": mnist_lola,
        "mnist-deep": mnist_deep,
        "digits-mlp": digits_mlp,
    }
)


def _named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))
