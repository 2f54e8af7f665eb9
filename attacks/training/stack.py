"""Trains M models of one architecture at once, each on its own part of one pool.

    pool (N records) ──per model: its own members, its own batch order──► (M, batch) records
    stacked weights (M, …) ──vmap──► (M, batch, classes) ──loss summed over models──► one backward

The loss of one model does not depend on the weights of another, so one backward pass over the sum
gives each model its own gradient, and elementwise optimisers treat the stack as M optimisers.
Running statistics of batch norm are stacked buffers that each model updates for itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from attacks.core.arrays import Bools, Floats, Ints
from attacks.core.records import Records
from attacks.errors import DataSplitError, ShadowError
from attacks.progress import Progress

_CHUNK: Final = 2048

# Called after each optimiser step with the stacked parameters, to keep them inside bounds.
AfterStep = Callable[[dict[str, Tensor]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """AdamW with a one-cycle rate. ``batch`` records a step; ``weight_decay`` on matrices only.

    ``distillation``: the weight of the squared distance to given target logits, 0 without them.
    Cross entropy with the labels has the rest of the weight. ``label_smoothing``: the share of the
    labels' weight that is spread evenly over all classes (Szegedy et al. 2016).
    """

    epochs: int
    batch: int
    rate: float
    weight_decay: float = 0.0
    distillation: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2:
            raise ShadowError("training needs at least one epoch and two records in a batch")
        if not 0 <= self.label_smoothing < 1:
            raise ShadowError(f"label_smoothing lies in [0, 1), got {self.label_smoothing}")
        if not self.rate > 0 or self.weight_decay < 0 or not 0 <= self.distillation <= 1:
            raise ShadowError("rate must be positive, weight_decay ≥ 0, distillation in [0, 1]")


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """M trained models: ``parameters`` and ``buffers`` (M, …) by name, ``template`` their shape."""

    template: nn.Module
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.parameters.values())))

    def logits(self, inputs: Floats) -> Floats:
        """What every model answers, in float64: (B, *shape) → (M, B, classes)."""
        skeleton = copy.deepcopy(self.template).double().eval()
        parameters = {name: value.double() for name, value in self.parameters.items()}
        buffers = {
            name: value.double() if value.is_floating_point() else value
            for name, value in self.buffers.items()
        }
        forward = vmap(_forward(skeleton), in_dims=(0, 0, None))
        with torch.no_grad():
            parts = [
                forward(parameters, buffers, part)
                for part in torch.split(torch.as_tensor(inputs, dtype=torch.float64), _CHUNK)
            ]
        result: Floats = torch.cat(parts, dim=1).numpy()
        return result

    def module(self, index: int) -> nn.Module:
        """Model ``index`` on its own, a copy in evaluation mode."""
        model = copy.deepcopy(self.template)
        model.load_state_dict(
            {name: value[index] for name, value in (self.parameters | self.buffers).items()}
        )
        return model.eval()

    @classmethod
    def of(cls, models: Sequence[nn.Module]) -> Stack:
        """Stack models of one architecture; ShadowError if their weights differ in shape."""
        states = [dict(model.named_parameters()) for model in models]
        buffers = [dict(model.named_buffers()) for model in models]
        shapes = [{n: tuple(v.shape) for n, v in s.items()} for s in states]
        if not models or any(shape != shapes[0] for shape in shapes):
            raise ShadowError("only models of one architecture can be stacked")
        return cls(
            copy.deepcopy(models[0]),
            {n: torch.stack([s[n].detach() for s in states]) for n in states[0]},
            {n: torch.stack([s[n].detach() for s in buffers]) for n in buffers[0]},
        )


def train_stack(
    models: Sequence[nn.Module],
    pool: Records,
    is_member: Bools,
    config: TrainingConfig,
    *,
    seeds: Sequence[int],
    targets: Floats | None = None,
    after_step: AfterStep | None = None,
    progress: Progress | None = None,
    first: int = 0,
) -> Stack:
    """Train ``models``, of one architecture and already initialised, together.

    ``is_member`` (M, N): which of the pool's N records each model is trained on; all models need
    equally many. ``seeds`` (M,): of the batch order, one per model. ``targets`` (M, N, classes):
    logits to distil from. ``first``: number of the first model, for messages. The given models
    stay as they are.
    Raises ShadowError naming the models that diverge or stay at chance, DataSplitError for
    memberships that do not fit.
    """
    members = member_indices(pool, is_member, models, seeds, batch=config.batch)
    stack = Stack.of(models)
    parameters = {n: v.clone().requires_grad_() for n, v in stack.parameters.items()}
    buffers = {n: v.clone() for n, v in stack.buffers.items()}
    skeleton = copy.deepcopy(stack.template).train()
    # Dropout draws its own noise per model; batch norm writes into each model's own buffers.
    forward = vmap(_forward(skeleton), in_dims=(0, 0, 0), randomness="different")
    inputs, labels = tensors(pool)
    wanted = None if targets is None else torch.as_tensor(targets, dtype=torch.float32)
    rows = torch.arange(len(models))[:, None]

    def loss_of(chosen: Tensor) -> Tensor:
        logits = forward(parameters, buffers, inputs[chosen])  # (M, batch, classes)
        aim = None if wanted is None else wanted[rows, chosen]
        return losses(logits, labels[chosen], aim, config).sum()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seeds[0]))
        descend(
            parameters,
            config,
            members,
            [np.random.default_rng(seed) for seed in seeds],
            loss_of,
            stacked=True,
            after_step=after_step,
            progress=progress,
        )
    trained = Stack(
        stack.template,
        {n: v.detach() for n, v in parameters.items()},
        {n: v.detach() for n, v in buffers.items()},
    )
    check_trained(trained, pool, is_member, first=first)
    return trained


def descend(
    parameters: dict[str, Tensor],
    config: TrainingConfig,
    members: Ints,
    generators: Sequence[np.random.Generator],
    loss_of: Callable[[Tensor], Tensor],
    *,
    stacked: bool,
    after_step: AfterStep | None = None,
    progress: Progress | None = None,
) -> None:
    """Gradient descent on ``parameters``, in place: the loop of every training by ``config``.

    ``members`` (M, members): the records of each model, which ``generators``, one per model,
    shuffle every epoch. ``loss_of``: from the chosen records, (M, batch), to the sum of the
    models' losses. ``stacked``: whether parameters have a model axis in front. The parameters of
    a single network do not; ``after_step`` sees them with that axis, (1, …), all the same.
    """
    count, batch = members.shape[1], config.batch
    optimiser, schedule = _optimiser(parameters, config, count // batch, stacked=stacked)
    for epoch in range(config.epochs):
        order = torch.as_tensor(
            np.stack([g.permutation(row) for g, row in zip(generators, members, strict=True)])
        )  # (M, members)
        for step in range(count // batch):
            loss = loss_of(order[:, step * batch : (step + 1) * batch])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            if after_step is not None:
                with torch.no_grad():
                    after_step(parameters if stacked else with_model_axis(parameters))
        if progress is not None:
            progress(f"train {len(members)} models", epoch + 1, config.epochs)


def with_model_axis(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parameters of one network as a stack of one, (1, …), sharing their memory."""
    return {name: value.unsqueeze(0) for name, value in parameters.items()}


def tensors(records: Records) -> tuple[Tensor, Tensor]:
    """Inputs in single precision, and labels, as networks are trained on them."""
    return torch.as_tensor(records.inputs, dtype=torch.float32), torch.as_tensor(records.labels)


def losses(logits: Tensor, labels: Tensor, aim: Tensor | None, config: TrainingConfig) -> Tensor:
    """The loss of each model, (M,), from logits (M, B, classes) and labels (M, B)."""
    models, batch, classes = logits.shape
    entropy = functional.cross_entropy(
        logits.reshape(-1, classes),
        labels.reshape(-1),
        reduction="none",
        label_smoothing=config.label_smoothing,
    )
    mean = entropy.reshape(models, batch).mean(dim=1)
    if aim is None or config.distillation == 0.0:
        return mean
    distance = ((logits - aim) ** 2).mean(dim=(1, 2))
    return (1 - config.distillation) * mean + config.distillation * distance


def check_trained(stack: Stack, pool: Records, is_member: Bools, *, first: int = 0) -> None:
    """Raise ShadowError naming models whose answers are not finite or no better than chance.

    ``first``: the number of the stack's first model.

    Better than chance: members are labelled right more often than the most common label is.
    An untrained shadow is the field's classic silent error: it makes every attack look weak.
    """
    logits = stack.logits(pool.inputs)
    finite = np.isfinite(logits).all(axis=(1, 2))
    if not finite.all():
        raise ShadowError(
            f"models {(first + np.flatnonzero(~finite)).tolist()} diverged: lower the learning rate"
        )
    right = logits.argmax(axis=2) == pool.labels
    chance = np.bincount(pool.labels).max() / len(pool)
    accuracy = np.array([r[m].mean() for r, m in zip(right, is_member, strict=True)])
    idle = accuracy <= chance
    if idle.any():
        raise ShadowError(
            f"models {(first + np.flatnonzero(idle)).tolist()} are no better than chance on "
            "their own members: train them longer or with a higher rate"
        )


def membership_masks(models: int, records: int, rng: np.random.Generator) -> Bools:
    """(models, records): every record in half of the models, every model with half of them.

    Models come in pairs with opposite memberships, each pair a fresh draw, so that both counts are
    exact. Raises DataSplitError for odd numbers.
    """
    if models < 2 or models % 2 or records < 2 or records % 2:
        raise DataSplitError(
            f"{models} models over {records} records: both must be even, so that every record is "
            "a member of half of the models"
        )
    masks = np.zeros((models, records), dtype=np.bool_)
    for pair in range(models // 2):
        masks[2 * pair, rng.permutation(records)[: records // 2]] = True
        masks[2 * pair + 1] = ~masks[2 * pair]
    return masks


def initialised(factory: Callable[[], nn.Module], seeds: Sequence[int]) -> list[nn.Module]:
    """One fresh model per seed; layers initialise themselves from torch's global stream."""
    models = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seed))
            models.append(factory().float())
    return models


def _forward(skeleton: nn.Module) -> Callable[[dict[str, Tensor], dict[str, Tensor], Tensor], Any]:
    return lambda parameters, buffers, x: functional_call(skeleton, (parameters, buffers), (x,))


def _optimiser(
    parameters: dict[str, Tensor], config: TrainingConfig, steps: int, *, stacked: bool
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW and its one-cycle schedule over epochs of so many ``steps``; only matrices decay."""
    # In a stack one dimension counts the models, and a stacked bias has two.
    least = 3 if stacked else 2
    groups = [
        {
            "params": [v for v in parameters.values() if (v.ndim >= least) is matrices],
            "weight_decay": config.weight_decay if matrices else 0.0,
        }
        for matrices in (True, False)
    ]
    optimiser = torch.optim.AdamW([g for g in groups if g["params"]], lr=config.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=config.rate, total_steps=config.epochs * steps, pct_start=0.25
    )
    return optimiser, schedule


def member_indices(
    pool: Records,
    is_member: Bools,
    models: Sequence[nn.Module],
    seeds: Sequence[int],
    *,
    batch: int,
) -> Ints:
    """(M, members): the records of each model; DataSplitError if they do not fit."""
    if is_member.shape != (len(models), len(pool)) or len(seeds) != len(models):
        raise DataSplitError(
            f"{len(models)} models, {len(seeds)} seeds and {len(pool)} records do not fit "
            f"memberships of shape {is_member.shape}"
        )
    counts = is_member.sum(axis=1)
    if len(set(counts.tolist())) != 1 or counts[0] < batch:
        raise DataSplitError(
            f"every model needs equally many members, at least a batch of {batch}, got "
            f"{int(counts.min())} to {int(counts.max())}"
        )
    return np.stack([np.flatnonzero(row) for row in is_member])
