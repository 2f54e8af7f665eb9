"""The same training one model after the other: what the stack is checked and timed against."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from attacks.core.records import Records
from attacks.training.stack import (
    Stack,
    TrainingConfig,
    check_trained,
    losses,
    member_indices,
    optimiser_of,
)


def train_loop(
    models: Sequence[nn.Module],
    pool: Records,
    is_member: NDArray[np.bool_],
    config: TrainingConfig,
    *,
    seeds: Sequence[int],
    targets: NDArray[np.float64] | None = None,
) -> Stack:
    """As ``train_stack``, with the same batches and the same result up to rounding.

    Dropout draws other noise than the stack does. Errors as there.
    """
    members = member_indices(pool, is_member, models, seeds, config)
    inputs = torch.as_tensor(pool.inputs, dtype=torch.float32)
    labels = torch.as_tensor(pool.labels)
    wanted = None if targets is None else torch.as_tensor(targets, dtype=torch.float32)
    trained = []
    for index, (given, row, seed) in enumerate(zip(models, members, seeds, strict=True)):
        model = copy.deepcopy(given).train()
        # Stacked, a matrix has a dimension more: hence 2 here and 3 there.
        optimiser, schedule = optimiser_of(
            list(model.parameters()), config, len(row), matrix_dimensions=2
        )
        generator = np.random.default_rng(seed)
        for _ in range(config.epochs):
            order = torch.as_tensor(generator.permutation(row))
            for step in range(len(row) // config.batch):
                chosen = order[step * config.batch : (step + 1) * config.batch]
                aim = None if wanted is None else wanted[index, chosen][None]
                logits = model(inputs[chosen])[None]  # a stack of one
                loss = losses(logits, labels[chosen][None], aim, config).sum()
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
        trained.append(model)
    stack = Stack.of(trained)
    check_trained(stack, pool, is_member)
    return stack
