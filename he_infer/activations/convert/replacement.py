"""Replaces the activations of a network by polynomials, one after the other, and tunes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from he_infer.activations.approx import Polynomial
from he_infer.activations.convert.config import (
    PolynomializeConfig,
    PolynomializeReport,
    SiteReport,
    TrainingData,
)
from he_infer.activations.convert.finetune import finetune
from he_infer.activations.convert.observation import Seen, neutral_norm, observe, widened
from he_infer.activations.convert.sites import (
    activation_sites,
    function_of,
    normalised_sites,
    replace_module,
    separate_activations,
)
from he_infer.activations.forward import predict
from he_infer.activations.layer import PolynomialActivation
from he_infer.errors import ApproximationError, InputError
from he_infer.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """A polynomial, the class name of the activation that it replaces, and its layer."""

    polynomial: Polynomial
    function: str
    layer: PolynomialActivation


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
    With ``training``, activations are replaced one after the other. Each replacement is followed
    by ``config.epochs_per_site`` epochs of distillation from ``model``, the last one by
    ``config.epochs``. Without it, only the replacement happens.
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
    fits: dict[str, _Fit] = {}
    floors: list[tuple[PolynomialActivation, Tensor]] = []

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
        seen = observe(network, {path: module}, sample)[path]
        polynomial = config.method(
            function_of(module), interval=widened(seen, config.margin), degree=config.degree
        )
        layer = _activation(polynomial, len(seen.mean), sample.dtype)
        missing = config.insert_batch_norm and path not in normalised
        norm = neutral_norm(seen) if missing and training is not None else None
        replace_module(network, path, layer if norm is None else nn.Sequential(norm, layer))
        floors.append((layer, config.min_leading * layer.coefficients.detach()[:, -1].abs()))
        fits[path] = _Fit(polynomial=polynomial, function=type(module).__name__, layer=layer)
        if progress is not None:
            progress("replace activations", done, len(sites))
        if done < len(sites):
            tune(config.epochs_per_site)
    tune(config.epochs)
    network.eval()
    after = observe(
        network,
        {path: fit.layer for path, fit in fits.items()},
        sample,
        intervals={path: fit.polynomial.interval for path, fit in fits.items()},
    )
    return network, PolynomializeReport(
        sites=tuple(_site(path, fit, after[path]) for path, fit in fits.items()),
        left=left,
        losses=tuple(losses),
    )


def _site(path: str, fit: _Fit, seen: Seen) -> SiteReport:
    return SiteReport(
        path=path,
        function=fit.function,
        degree=fit.polynomial.degree,
        interval=fit.polynomial.interval,
        sup_error=fit.polynomial.sup_error,
        seen=(seen.low, seen.high),
        outside=seen.outside,
    )


def _activation(polynomial: Polynomial, channels: int, dtype: torch.dtype) -> PolynomialActivation:
    power = torch.as_tensor(polynomial.coefficients_power(), dtype=dtype)
    if len(power) < 2:
        raise ApproximationError("an activation of degree 0 carries no signal: use 1 or more")
    return PolynomialActivation(
        power.repeat(channels, 1), center=polynomial.center, radius=polynomial.radius
    )
