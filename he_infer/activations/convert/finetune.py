"""Fine-tuning after a replacement: distillation, labels, and a penalty that keeps the range."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from he_infer.activations.convert.config import PolynomializeConfig, TrainingData
from he_infer.activations.forward import range_penalties
from he_infer.activations.layer import PolynomialActivation
from he_infer.errors import TrainingError

_CLIP_NORM: Final = 5.0


def finetune(
    model: nn.Module,
    floors: Sequence[tuple[PolynomialActivation, Tensor]],
    *,
    data: TrainingData,
    targets: Tensor,
    epochs: int,
    config: PolynomializeConfig,
    rng: np.random.Generator,
    report: Callable[[float], None],
) -> None:
    """Train in place for ``epochs``; ``targets`` are the original's logits, (B, classes).

    ``floors``: every polynomial with the smallest |a| its quadratics may take, (channels,).
    ``report`` gets the mean loss of every epoch. Raises TrainingError if it is not finite.
    Sources: Hinton, Vinyals, Dean, arXiv:1503.02531 (distillation); SMART-PAF, arXiv:2404.03216.
    """
    layers = [layer for layer, _ in floors]
    coefficients = [layer.coefficients for layer in layers]
    own = {id(c) for c in coefficients}
    weights = [p for p in model.parameters() if id(p) not in own and p.requires_grad]
    groups = [{"params": coefficients, "lr": config.coefficient_rate, "weight_decay": 0.0}]
    if weights:
        groups.append({"params": weights, "lr": config.learning_rate, "weight_decay": 1e-4})
    optimiser = torch.optim.AdamW(groups)
    inputs = torch.from_numpy(data.inputs)
    labels = None if data.labels is None else torch.from_numpy(data.labels)
    # One record alone has no batch statistics, so a last batch of one is left out.
    starts = [s for s in range(0, len(inputs), config.batch_size) if len(inputs) - s > 1]
    total = max(1, epochs * len(starts))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / total)))
    )
    model.train()
    try:
        for _ in range(epochs):
            order = torch.from_numpy(rng.permutation(len(inputs)))
            summed = 0.0
            for start in starts:
                chosen = order[start : start + config.batch_size]
                with range_penalties(layers, config.range_limit) as penalties:
                    logits = model(inputs[chosen])
                loss = _distance(logits, targets[chosen], config)
                if labels is not None:
                    loss = loss + config.label_weight * functional.cross_entropy(
                        logits, labels[chosen]
                    )
                for penalty in penalties:
                    loss = loss + config.range_weight * penalty
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise TrainingError(
                        "the fine-tuning loss is not finite: lower the degree or the learning "
                        "rates, or raise range_weight or margin"
                    )
                optimiser.zero_grad()
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(model.parameters(), _CLIP_NORM)
                optimiser.step()
                schedule.step()
                _keep_leading(floors)
                summed += value
            report(summed / len(starts))
    finally:
        model.eval()


def _distance(logits: Tensor, targets: Tensor, config: PolynomializeConfig) -> Tensor:
    t = config.temperature
    divergence = functional.kl_div(
        functional.log_softmax(logits / t, dim=1),
        functional.log_softmax(targets / t, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    # T² keeps the gradients' size independent of the temperature.
    return config.kl_weight * t * t * divergence + config.logit_weight * functional.mse_loss(
        logits, targets
    )


@torch.no_grad()
def _keep_leading(floors: Sequence[tuple[PolynomialActivation, Tensor]]) -> None:
    """Keep |a| of every quadratic above its floor, in place."""
    for layer, floor in floors:
        if layer.degree == 2:
            a = layer.coefficients[:, -1]
            sign = torch.where(a < 0, -1.0, 1.0)
            a.copy_(sign * torch.maximum(a.abs(), floor))
