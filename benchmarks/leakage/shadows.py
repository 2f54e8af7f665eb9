"""Shadow models trained together against a Python loop over them: how many times faster."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch

from attacks.core.records import Records
from attacks.errors import AttackError
from attacks.oracles.recipes import mlp
from attacks.training.loop import train_loop
from attacks.training.stack import TrainingConfig, initialised, membership_masks, train_stack
from benchmarks.rows import row, unjudged
from he_infer import datasets
from he_infer.errors import DataError

MODELS: Final = 64
REPEATS: Final = 5
SOURCE: Final = "stated goal: ≥ 5× at digits size, never slower at MNIST size"
_CONFIG: Final = TrainingConfig(epochs=2, batch=50, rate=0.01)


def rows() -> list[dict[str, Any]]:
    """64 models, one thread, medians of five runs in turn: at digits size and at MNIST size."""
    digits, _ = datasets.digits()
    found = [
        _compared(
            "64 shadow models together, digits 64-32-10",
            5.0,
            digits.flat_inputs()[:1400],
            digits.labels[:1400],
            functools.partial(mlp, 64, 32, 10),
        )
    ]
    name = "64 shadow models together, MNIST 784-64-10"
    try:
        mnist, _ = datasets.mnist()
    except DataError as error:
        found.append(unjudged(name, SOURCE, reference=1.0, reason=str(error)))
        return found
    architecture = functools.partial(mlp, 784, 64, 10)
    found.append(
        _compared(name, 1.0, mnist.flat_inputs()[:2000], mnist.labels[:2000], architecture)
    )
    return found


def _compared(
    name: str, reference: float, inputs: Any, labels: Any, architecture: Callable[[], Any]
) -> dict[str, Any]:
    pool = Records(inputs=np.asarray(inputs, dtype=np.float64), labels=np.asarray(labels))
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
            together = _seconds(lambda: train_stack(models, pool, masks, _CONFIG, seeds=seeds))
            alone = _seconds(lambda: train_loop(models, pool, masks, _CONFIG, seeds=seeds))
            ratios.append(alone / together)
    except AttackError as error:
        return unjudged(name, SOURCE, reference=reference, reason=str(error))
    finally:
        torch.set_num_threads(threads)
    ratio = statistics.median(ratios)
    return row(
        name,
        SOURCE,
        reference=reference,
        ours=ratio,
        interval=[min(ratios), max(ratios)],
        holds=ratio >= reference,
        reason=f"seconds of the loop over seconds of the stack, {_CONFIG.epochs} epochs",
    )


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
