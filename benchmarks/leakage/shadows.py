"""Shadow models trained together against a Python loop over them: how many times faster."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import nn

from attacks.core.records import Records
from attacks.errors import AttackError
from attacks.oracles.recipes import mlp
from attacks.training.loop import train_loop
from attacks.training.stack import TrainingConfig, initialised, membership_masks, train_stack
from benchmarks.leakage.setting import flat
from benchmarks.record import timed
from benchmarks.rows import Row
from he_infer import datasets
from he_infer.errors import DataError

MODELS: Final = 64
REPEATS: Final = 5
SOURCE: Final = "stated goal: ≥ 5× at digits size, never slower at MNIST size"
_CONFIG: Final = TrainingConfig(epochs=2, batch=50, rate=0.01)


def rows() -> list[Row]:
    """64 models, one thread, medians of five runs in turn: at digits size and at MNIST size."""
    digits, _ = datasets.digits()
    small = partial(mlp, 64, 32, 10)
    found = [
        _compared("64 shadow models together, digits 64-32-10", 5.0, flat(digits, 1400), small)
    ]
    name = "64 shadow models together, MNIST 784-64-10"
    try:
        mnist, _ = datasets.mnist()
    except DataError as error:
        return [*found, Row(name, SOURCE, reference=1.0, reason=str(error))]
    return [*found, _compared(name, 1.0, flat(mnist, 2000), partial(mlp, 784, 64, 10))]


def _compared(
    name: str, reference: float, pool: Records, architecture: Callable[[], nn.Module]
) -> Row:
    masks = membership_masks(MODELS, len(pool), np.random.default_rng(0))
    seeds = list(range(MODELS))
    models = initialised(architecture, seeds)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # The first use of vmap imports a good part of torch: not what is compared.
        train_stack(models, pool, masks, _CONFIG, seeds=seeds)
        ratios = []
        for _ in range(REPEATS):
            _, together = timed(lambda: train_stack(models, pool, masks, _CONFIG, seeds=seeds))
            _, alone = timed(lambda: train_loop(models, pool, masks, _CONFIG, seeds=seeds))
            ratios.append(alone / together)
    except AttackError as error:
        return Row(name, SOURCE, reference=reference, reason=str(error))
    finally:
        torch.set_num_threads(threads)
    ratio = statistics.median(ratios)
    return Row(
        name,
        SOURCE,
        reference=reference,
        ours=ratio,
        interval=[min(ratios), max(ratios)],
        holds=ratio >= reference,
        reason=f"seconds of the loop over seconds of the stack, {_CONFIG.epochs} epochs",
    )
