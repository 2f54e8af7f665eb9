"""The training of a stack, one model after the other. The stack is checked and timed against it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from attacks.core.arrays import Bools, Floats
from attacks.core.records import Records
from attacks.training.stack import (
    Stack,
    TrainingConfig,
    check_trained,
    descend,
    losses,
    member_indices,
    tensors,
)


def train_loop(
    models: Sequence[nn.Module],
    pool: Records,
    is_member: Bools,
    config: TrainingConfig,
    *,
    seeds: Sequence[int],
    targets: Floats | None = None,
) -> Stack:
    """As ``train_stack``, with the same batches and the same result up to rounding.

    Dropout draws other noise than the stack does. Errors as there.
    """
    members = member_indices(pool, is_member, models, seeds, batch=config.batch)
    inputs, labels = tensors(pool)
    wanted = None if targets is None else torch.as_tensor(targets, dtype=torch.float32)
    trained = [copy.deepcopy(model).train() for model in models]
    for index, model in enumerate(trained):

        def loss_of(chosen: Tensor, index: int = index, model: nn.Module = model) -> Tensor:
            logits = model(inputs[chosen[0]])[None]  # a stack of one
            aim = None if wanted is None else wanted[index, chosen]
            return losses(logits, labels[chosen], aim, config).sum()

        descend(
            dict(model.named_parameters()),
            config,
            members[index : index + 1],
            [np.random.default_rng(seeds[index])],
            loss_of,
            stacked=False,
        )
    stack = Stack.of(trained)
    check_trained(stack, pool, is_member)
    return stack
