"""Architectures that overfit less, or that can be trained privately, made from given ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from attacks.errors import ShadowError


def with_dropout(architecture: Callable[[], nn.Module], share: float) -> nn.Module:
    """The network with dropout of ``share`` after every ReLU (Srivastava et al. 2014).

    Dropout does nothing in evaluation mode, so that the compiled plan does not change. Raises
    ShadowError for a share outside (0, 1), and for a network without a ReLU module.
    """
    if not 0 < share < 1:
        raise ShadowError(f"dropout takes a share between 0 and 1, got {share}")
    network = architecture()
    found = [path for path, module in network.named_modules() if isinstance(module, nn.ReLU)]
    if not found or "" in found:
        raise ShadowError("dropout goes after ReLU modules, and the network has none inside")
    for path in found:
        relu = network.get_submodule(path)
        _replace(network, path, nn.Sequential(relu, nn.Dropout(share)))
    return network


def without_batch_norm(architecture: Callable[[], nn.Module]) -> nn.Module:
    """The network without its batch norms; the layer before each gets a bias if it had none.

    Batch norm mixes the records of a batch, so no gradient belongs to one record alone, and its
    statistics are computed without noise: it cannot be private. Group norm could, but it divides
    by a record's own deviation, which is no polynomial: a plan cannot evaluate it.
    """
    network = architecture()
    for path, norm, before in list(_norms(network)):
        if before is not None and before.bias is None:
            # Zeros: drawing them would shift every layer initialised afterwards.
            before.bias = nn.Parameter(torch.zeros(norm.num_features))
        _replace(network, path, nn.Identity())
    return network


def _norms(
    network: nn.Module,
) -> Iterator[tuple[str, _BatchNorm, nn.Linear | _ConvNd | None]]:
    """Every batch norm with its path and the linear map that was registered before it."""
    before: nn.Linear | _ConvNd | None = None
    for path, module in network.named_modules():
        if isinstance(module, _BatchNorm):
            yield path, module, before
            before = None
        elif isinstance(module, nn.Linear | _ConvNd):
            before = module


def _replace(network: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, new)
