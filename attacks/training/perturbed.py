"""Training on inputs that are moved at every step: by an adversary, or by noise.

    batch ──moved against the network as it is──► network ──► loss (+ range penalty) ──► step
              (eval mode)                         (train mode)

Moved inputs move the values before activations. A polynomial grows without bound outside the
interval that it was made for, and a compiled plan cannot clip. So the twin's intervals are taken
from moved members, and the loss has a penalty on values that still leave them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from attacks.core.arrays import Floats
from attacks.core.intervals import Estimate, clopper_pearson
from attacks.core.records import Records
from attacks.errors import ShadowError
from attacks.training.recipe import PairTrainer, TwinRecipe
from attacks.training.stack import (
    AfterStep,
    Stack,
    TrainingConfig,
    descend,
    losses,
    tensors,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Records that are to be moved: ``inputs`` (B, *shape) and ``labels`` (B,).

    ``low``, ``high``: the range that moved values have to stay in. ``generator``: of random starts
    and noise.
    """

    inputs: Tensor
    labels: Tensor
    low: float
    high: float
    generator: torch.Generator


class Perturbation(Protocol):
    """How inputs are moved; its ``repr`` states every parameter."""

    def moved(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, *shape) within the batch's range, against ``model`` as it is, in evaluation mode."""
        ...


@runtime_checkable
class Ranged(Protocol):
    """An activation that is meant for the interval ``center ± radius`` (channels,)."""

    center: Tensor
    radius: Tensor

    def range_penalty(self, x: Tensor, limit: float) -> Tensor:
        """Mean squared excess of |x − center| / radius over ``limit``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PerturbedTraining:
    """Both twins trained on moved inputs, by the recipe's two configurations.

    ``range_weight``: the weight of the penalty on values more than ``range_limit`` radii from the
    center of an activation's interval. The polynomial network's inputs are moved against that
    network itself. It distils the ReLU network's answers to them.
    """

    perturbation: Perturbation
    range_weight: float = 1.0
    range_limit: float = 0.95

    def __post_init__(self) -> None:
        if self.range_weight < 0 or not self.range_limit > 0:
            raise ShadowError("range_weight is 0 or more and range_limit positive")

    @property
    def description(self) -> str:
        return f"on {self.perturbation!r}, range {self.range_weight} from {self.range_limit}"

    def least_members(self, recipe: TwinRecipe) -> int:
        return recipe.relu.batch

    def trainer(self, recipe: TwinRecipe, shape: tuple[int, ...], members: int) -> PairTrainer:
        """As :class:`Procedure` states."""

        def pair(fresh: nn.Module, own: Records, seed: int) -> Iterator[nn.Module]:
            original = self.original(recipe, fresh, own, seed=seed)
            yield original
            yield self.twin(recipe, original, own, seed=seed)

        return pair

    def original(
        self, recipe: TwinRecipe, model: nn.Module, members: Records, *, seed: int
    ) -> nn.Module:
        """``model`` trained in place by ``recipe.relu`` on moved members."""
        return train_on_moved(
            model, members, recipe.relu, self, low=recipe.low, high=recipe.high, seed=seed
        )

    def twin(
        self, recipe: TwinRecipe, original: nn.Module, members: Records, *, seed: int
    ) -> nn.Module:
        """The polynomial twin of a robust ReLU network, its intervals taken from moved members."""
        span = moved_records(
            original, members, self.perturbation, low=recipe.low, high=recipe.high, seed=seed
        )
        both = np.concatenate([members.inputs, span]).astype(np.float32)
        replaced = recipe.replacement.network(original.eval(), both)
        return train_on_moved(
            replaced,
            members,
            recipe.polynomial,
            self,
            low=recipe.low,
            high=recipe.high,
            seed=seed + 1,
            teacher=original,
            after_step=recipe.replacement.bounds(Stack.of([replaced])),
        )


def train_on_moved(
    network: nn.Module,
    members: Records,
    config: TrainingConfig,
    training: PerturbedTraining,
    *,
    low: float,
    high: float,
    seed: int,
    teacher: nn.Module | None = None,
    after_step: AfterStep | None = None,
) -> nn.Module:
    """Train ``network`` in place, and give it back in evaluation mode.

    ``teacher``: the network whose answers to the moved inputs are distilled. ``after_step`` sees
    parameters with a model axis in front, (1, …). Raises ShadowError if the loss stops being a
    number.
    """
    inputs, labels = tensors(members)
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))

    def loss_of(chosen: Tensor) -> Tensor:
        mine = chosen[0]
        batch = Batch(
            inputs=inputs[mine], labels=labels[mine], low=low, high=high, generator=generator
        )
        moved = training.perturbation.moved(network.eval(), batch)
        with torch.no_grad():
            aim = None if teacher is None else teacher(moved)[None]
        with penalties(network.train(), training.range_limit) as excess:
            logits = network(moved)[None]  # a stack of one
        loss = losses(logits, labels[chosen], aim, config).sum() + training.range_weight * sum(
            excess
        )
        if not bool(torch.isfinite(loss)):
            raise ShadowError("training on moved inputs diverged: lower the learning rate")
        return loss

    descend(
        dict(network.named_parameters()),
        config,
        np.arange(len(members))[None],
        [rng],
        loss_of,
        stacked=False,
        after_step=after_step,
    )
    return network.eval()


def moved_records(
    model: nn.Module,
    records: Records,
    perturbation: Perturbation,
    *,
    low: float,
    high: float,
    seed: int,
) -> Floats:
    """(B, *shape): all of the records, moved against ``model`` in evaluation mode."""
    inputs, labels = tensors(records)
    generator = torch.Generator().manual_seed(seed)
    batch = Batch(inputs=inputs, labels=labels, low=low, high=high, generator=generator)
    moved = perturbation.moved(model.eval(), batch)
    # Single precision can round one step past the range.
    return np.clip(np.asarray(moved.numpy(), dtype=np.float64), low, high)


@contextmanager
def penalties(network: nn.Module, limit: float) -> Iterator[list[Tensor]]:
    """Collects the range penalty of every activation in the forward passes of the block."""
    found: list[Tensor] = []

    def collect(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, Ranged)
        found.append(layer.range_penalty(args[0], limit))

    with _watched(network, collect):
        yield found


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeUse:
    """How far values before activations lie from the intervals that these were made for.

    ``values``: the share of values outside. ``records``: the share of records with such a value.
    ``furthest``: the largest distance from the center, in radii.
    """

    values: float
    records: Estimate
    furthest: float


def range_use(network: nn.Module, inputs: Floats) -> RangeUse:
    """How ``network``, with polynomial activations, uses their intervals on (B, *shape) inputs.

    Raises ShadowError if it has no such activation.
    """
    distances: list[Tensor] = []

    def collect(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, Ranged)
        x = args[0]
        shape = (1, -1) + (1,) * (x.ndim - 2)
        normalised = (x - layer.center.reshape(shape)) / layer.radius.reshape(shape)
        distances.append(normalised.abs().flatten(1))

    with _watched(network.eval(), collect), torch.no_grad():
        network(torch.as_tensor(inputs, dtype=torch.float32))
    if not distances:
        raise ShadowError("the network has no activation with an interval")
    together = torch.cat(distances, dim=1)  # (B, values)
    outside = together > 1
    return RangeUse(
        values=float(outside.double().mean()),
        records=clopper_pearson(int(outside.any(dim=1).sum()), len(inputs)),
        furthest=float(together.max()),
    )


@contextmanager
def _watched(
    network: nn.Module, collect: Callable[[nn.Module, tuple[Tensor, ...]], None]
) -> Iterator[None]:
    handles = [
        layer.register_forward_pre_hook(collect)
        for layer in network.modules()
        if isinstance(layer, Ranged)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
