"""Small networks for the paired measurement, as files that an audit is given."""

from __future__ import annotations

from torch import nn

from attacks.oracles.recipes import mlp


def digits_mlp() -> nn.Module:
    """64 → 32 → 10."""
    return mlp(64, 32, 10)


def mnist_mlp() -> nn.Module:
    """784 → 32 → 10, for MNIST and Fashion-MNIST."""
    return mlp(784, 32, 10)
