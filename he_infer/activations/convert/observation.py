"""What the activations of a network are given on a sample, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from he_infer.activations.approx import Interval
from he_infer.activations.forward import watching
from he_infer.errors import ApproximationError, InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Inputs of one activation over the sample: their range and their moments per channel.

    ``outside``: the fraction of them off the interval that was asked about.
    """

    low: float
    high: float
    mean: Tensor  # (channels,)
    variance: Tensor  # (channels,)
    dimensions: int
    outside: float


def observe(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    sample: Tensor,
    *,
    intervals: Mapping[str, Interval] | None = None,
) -> dict[str, Seen]:
    """Run the sample once and summarise what each of the modules is given, by path.

    Raises ApproximationError for a module that is called twice or never, InputError for one
    that is given no batch.
    """
    paths = {module: path for path, module in modules.items()}
    found: dict[str, Seen] = {}

    def record(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        path, x = paths[module], args[0].detach()
        if path in found:
            raise ApproximationError(
                f"{path} is called more than once in a network that cannot be traced: "
                "give each call a module of its own"
            )
        if x.ndim < 2:
            raise InputError(f"{path} is given shape {tuple(x.shape)}: expected a batch")
        channels = x.transpose(0, 1).flatten(1).double()
        low, high = (intervals or {}).get(path, (-math.inf, math.inf))
        found[path] = Seen(
            low=float(x.min()),
            high=float(x.max()),
            mean=channels.mean(dim=1),
            variance=channels.var(dim=1, unbiased=False),
            dimensions=x.ndim,
            outside=float(((x < low) | (x > high)).double().mean()),
        )

    with watching(modules.values(), record), torch.no_grad():
        model(sample)
    for path in modules:
        if path not in found:
            raise ApproximationError(f"{path} is never called by the network: remove it")
    return found


def widened(seen: Seen, margin: float) -> Interval:
    """The observed range, wider by the factor ``margin`` around its centre.

    Raises ApproximationError if the range is not finite.
    """
    if not np.isfinite([seen.low, seen.high]).all():
        raise ApproximationError(
            "activations are not finite on the calibration sample: an earlier polynomial left "
            "its interval; lower the degree or raise the margin"
        )
    center, radius = 0.5 * (seen.low + seen.high), 0.5 * (seen.high - seen.low)
    radius = max(margin * radius, 1e-3)  # a constant input still needs an interval
    return center - radius, center + radius


def neutral_norm(seen: Seen) -> nn.Module:
    """A batch norm that changes nothing on data like the sample: it undoes its own scaling.

    Raises ApproximationError if torch has no batch norm for so many dimensions.
    """
    kinds = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    kind = kinds.get(seen.dimensions)
    if kind is None:
        raise ApproximationError(
            f"no batch norm for {seen.dimensions} dimensions: set insert_batch_norm to False"
        )
    norm = kind(len(seen.mean))
    assert norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.copy_(seen.mean)
        norm.running_var.copy_(seen.variance)
        norm.weight.copy_(torch.sqrt(seen.variance + norm.eps))
        norm.bias.copy_(seen.mean)
    return norm.eval()
