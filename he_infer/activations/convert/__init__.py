"""Turns a trained network into one whose activations are polynomials, and fine-tunes it.

For example::

    network, report = polynomialize(
        model, sample, config=PolynomializeConfig(degree=2),
        training=TrainingData(inputs=x, labels=y), rng=np.random.default_rng(0),
    )
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from he_infer.activations.approx import Interval, Polynomial
from he_infer.activations.convert.config import (
    PolynomializeConfig,
    PolynomializeReport,
    SiteReport,
    TrainingData,
)
from he_infer.activations.convert.finetune import finetune, predict
from he_infer.activations.convert.sites import (
    activation_sites,
    function_of,
    normalised_sites,
    replace_module,
    separate_activations,
)
from he_infer.activations.layer import PolynomialActivation
from he_infer.errors import ApproximationError, InputError
from he_infer.progress import Progress

__all__ = [
    "PolynomializeConfig",
    "PolynomializeReport",
    "SiteReport",
    "TrainingData",
    "polynomialize",
    "predict",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """Inputs of one activation over the calibration sample: range and per-channel moments."""

    low: float
    high: float
    mean: Tensor  # (channels,)
    variance: Tensor  # (channels,)
    dimensions: int


def polynomialize(
    model: nn.Module,
    calibration: NDArray[np.float32],
    *,
    config: PolynomializeConfig,
    rng: np.random.Generator,
    training: TrainingData | None = None,
    progress: Progress | None = None,
) -> tuple[nn.Module, PolynomializeReport]:
    """Replace every activation by a polynomial fitted on its calibrated interval.

    ``calibration``: (B, …) inputs from the training distribution; they decide the intervals.
    With ``training``, activations are replaced one after the other, each
    followed by ``config.epochs_per_site`` epochs of distillation from ``model``, and
    ``config.epochs`` at the end; without it, only the replacement happens.
    ``model`` itself is left untouched; the result is in evaluation mode.
    Raises InputError for a bad sample, ApproximationError if there is nothing to replace or a
    polynomial cannot be built, TrainingError if fine-tuning diverges.
    """
    if len(calibration) == 0 or not np.isfinite(calibration).all():
        raise InputError(
            "the calibration sample is empty or not finite: give a few hundred records"
        )
    sample = torch.from_numpy(calibration)
    network, left = separate_activations(model)
    network.eval()
    sites = activation_sites(network)
    if not sites:
        raise ApproximationError(
            "the network has no activation that a polynomial could replace"
            + "".join(f"; {line}" for line in left)
        )
    normalised = normalised_sites(network)
    targets = None
    if training is not None:
        was_training = model.training
        targets = predict(model, torch.from_numpy(training.inputs))
        model.train(was_training)
    losses: list[float] = []
    fits: dict[str, tuple[Polynomial, str, PolynomialActivation]] = {}
    floors: list[tuple[PolynomialActivation, Tensor]] = []
    total = len(sites)

    def tune(epochs: int) -> None:
        if training is not None and targets is not None and epochs > 0:
            finetune(
                network,
                floors,
                data=training,
                targets=targets,
                epochs=epochs,
                config=config,
                rng=rng,
                report=losses.append,
            )

    for done, (path, module) in enumerate(sites.items(), start=1):
        seen = _watch(network, {path: module}, sample)[path]
        polynomial = config.method(
            function_of(module), interval=_widened(seen, config.margin), degree=config.degree
        )
        layer = _activation(polynomial, len(seen.mean), sample.dtype)
        missing = config.insert_batch_norm and path not in normalised
        norm = _neutral_norm(seen) if missing and training is not None else None
        replace_module(network, path, layer if norm is None else nn.Sequential(norm, layer))
        floors.append((layer, config.min_leading * layer.coefficients.detach()[:, -1].abs()))
        fits[path] = (polynomial, type(module).__name__, layer)
        if progress is not None:
            progress("replace activations", done, total)
        if done < total:
            tune(config.epochs_per_site)
    tune(config.epochs)
    network.eval()
    seen_after = _watch(network, {path: layer for path, (_, _, layer) in fits.items()}, sample)
    reports = tuple(
        SiteReport(
            path=path,
            function=name,
            degree=polynomial.degree,
            interval=polynomial.interval,
            sup_error=polynomial.sup_error,
            seen=(seen_after[path].low, seen_after[path].high),
            outside=_outside(network, layer, sample, polynomial.interval),
        )
        for path, (polynomial, name, layer) in fits.items()
    )
    return network, PolynomializeReport(sites=reports, left=left, losses=tuple(losses))


def _watch(model: nn.Module, modules: dict[str, nn.Module], sample: Tensor) -> dict[str, _Seen]:
    """Run the sample once and summarise what each of the modules is given."""
    found: dict[str, _Seen] = {}
    handles = []
    for path, module in modules.items():

        def record(_: nn.Module, args: tuple[Tensor, ...], path: str = path) -> None:
            if path in found:
                raise ApproximationError(
                    f"{path} is called more than once in a network that cannot be traced: "
                    "give each call a module of its own"
                )
            x = args[0].detach()
            if x.ndim < 2:
                raise InputError(f"{path} is given shape {tuple(x.shape)}: expected a batch")
            channels = x.transpose(0, 1).flatten(1).double()
            found[path] = _Seen(
                low=float(x.min()),
                high=float(x.max()),
                mean=channels.mean(dim=1),
                variance=channels.var(dim=1, unbiased=False),
                dimensions=x.ndim,
            )

        handles.append(module.register_forward_pre_hook(record))
    try:
        with torch.no_grad():
            model(sample)
    finally:
        for handle in handles:
            handle.remove()
    for path in modules:
        if path not in found:
            raise ApproximationError(f"{path} is never called by the network: remove it")
    return found


def _outside(model: nn.Module, layer: nn.Module, sample: Tensor, interval: Interval) -> float:
    fractions: list[float] = []

    def record(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        off = (args[0] < interval[0]) | (args[0] > interval[1])
        fractions.append(float(off.double().mean()))

    handle = layer.register_forward_pre_hook(record)
    try:
        with torch.no_grad():
            model(sample)
    finally:
        handle.remove()
    return fractions[-1]


def _widened(seen: _Seen, margin: float) -> Interval:
    if not np.isfinite([seen.low, seen.high]).all():
        raise ApproximationError(
            "activations are not finite on the calibration sample: an earlier polynomial left "
            "its interval; lower the degree or raise the margin"
        )
    center, radius = 0.5 * (seen.low + seen.high), 0.5 * (seen.high - seen.low)
    radius = max(margin * radius, 1e-3)  # a constant input still needs an interval
    return center - radius, center + radius


def _activation(polynomial: Polynomial, channels: int, dtype: torch.dtype) -> PolynomialActivation:
    power = torch.as_tensor(polynomial.coefficients_power(), dtype=dtype)
    if len(power) < 2:
        raise ApproximationError("an activation of degree 0 carries no signal: use 1 or more")
    return PolynomialActivation(
        power.repeat(channels, 1), center=polynomial.center, radius=polynomial.radius
    )


def _neutral_norm(seen: _Seen) -> nn.Module:
    """A batch norm that changes nothing on data like the sample: it undoes its own scaling."""
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
