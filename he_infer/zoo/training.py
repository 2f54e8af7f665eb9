"""Runs a recipe: the same seed, data and thread count give the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from he_infer.activations.forward import predict, range_penalties, watching
from he_infer.activations.layer import PolynomialActivation
from he_infer.datasets import Dataset
from he_infer.errors import DataError, TrainingError
from he_infer.progress import Progress
from he_infer.zoo.architectures import ActivationFactory, build
from he_infer.zoo.augment import augment
from he_infer.zoo.recipes import Recipe

_CLASSES: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """A trained network in evaluation mode, and what it was trained on.

    ``losses``: mean training loss of each epoch, range penalty included.
    """

    model: nn.Module
    recipe: Recipe
    seed: int
    records: int
    losses: tuple[float, ...]

    def weights(self) -> bytes:
        """The network's tensors in the safetensors format."""
        tensors = {name: value.contiguous() for name, value in self.model.state_dict().items()}
        return safetensors.torch.save(tensors)


def run(
    recipe: Recipe,
    *,
    seed: int,
    data: Dataset,
    activation: ActivationFactory,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train ``recipe`` from scratch on all of ``data``.

    Raises TrainingError if the loss stops being finite, DataError if ``data`` does not fit.
    """
    images, labels = _tensors(recipe, data)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # layers initialise themselves from the global stream
        model = build(recipe.name, activation)
    activations = [m for m in model.modules() if isinstance(m, PolynomialActivation)]
    steps_per_epoch = len(labels) // recipe.batch
    total = recipe.epochs * steps_per_epoch
    optimiser = torch.optim.AdamW(_groups(model, recipe), lr=recipe.peak_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=recipe.peak_rate, total_steps=total, pct_start=0.25
    )
    losses: list[float] = []
    model.train()
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(labels), generator=generator)
        settling = epoch >= recipe.epochs - recipe.settle_epochs
        summed = 0.0
        # The last, incomplete batch is left out: batch norm needs even statistics.
        for step in range(steps_per_epoch):
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            batch = images[chosen]  # (batch, 1, H, W)
            if recipe.augmentation is not None and not settling:
                batch = augment(batch, recipe.augmentation, generator)
            batch = batch.reshape(len(chosen), *recipe.input_shape)
            with range_penalties(activations, recipe.range_limit) as penalties:
                logits = model(batch)
            loss = functional.cross_entropy(
                logits, labels[chosen], label_smoothing=recipe.label_smoothing
            )
            for penalty in penalties:
                loss = loss + recipe.range_weight * penalty
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            for layer in activations:
                layer.keep_curved(min_leading=recipe.min_leading, max_shift=recipe.max_shift)
            summed += float(loss.detach())
            if progress is not None:
                progress(f"train {recipe.name}", epoch * steps_per_epoch + step + 1, total)
        losses.append(summed / steps_per_epoch)
        if not np.isfinite(losses[-1]):
            raise TrainingError(
                f"{recipe.name}: the loss is not finite in epoch {epoch + 1}: lower peak_rate "
                "or raise range_weight"
            )
    model.eval()
    return TrainingResult(
        model=model, recipe=recipe, seed=seed, records=len(labels), losses=tuple(losses)
    )


def activation_ranges(
    model: nn.Module, inputs: NDArray[np.float32]
) -> dict[str, tuple[float, float]]:
    """Smallest and largest input that each activation sees over ``inputs``, by layer name."""
    names: dict[nn.Module, str] = {
        layer: name
        for name, layer in model.named_modules()
        if isinstance(layer, (PolynomialActivation, nn.ReLU))
    }
    ranges: dict[str, tuple[float, float]] = {}

    def record(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        low, high = ranges.get(names[layer], (float("inf"), float("-inf")))
        ranges[names[layer]] = min(low, float(args[0].min())), max(high, float(args[0].max()))

    with watching(names, record):
        predict(model, torch.from_numpy(inputs))
    return ranges


def _groups(model: nn.Module, recipe: Recipe) -> list[dict[str, object]]:
    """Weight decay for the matrices only: decaying a quadratic would flatten it."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for layer in model.modules():
        for name, parameter in layer.named_parameters(recurse=False):
            is_matrix = isinstance(layer, (nn.Conv2d, nn.Linear)) and name == "weight"
            (matrices if is_matrix else others).append(parameter)
    return [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _tensors(recipe: Recipe, data: Dataset) -> tuple[Tensor, Tensor]:
    if len(data) < recipe.batch:
        raise DataError(f"{recipe.name}: {len(data)} records do not fill a batch of {recipe.batch}")
    if np.prod(data.images.shape[1:]) != np.prod(recipe.input_shape):
        raise DataError(
            f"{recipe.name}: images of shape {data.images.shape[1:]} do not fit inputs of shape "
            f"{recipe.input_shape}"
        )
    if int(data.labels.min()) < 0 or int(data.labels.max()) >= _CLASSES:
        raise DataError(f"{recipe.name}: labels must lie in 0 … {_CLASSES - 1}")
    return torch.from_numpy(data.inputs()), torch.from_numpy(data.labels)
