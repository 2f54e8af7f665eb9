"""Ways to train that leak less, each a change of the recipe that target and shadows follow.

The adversary knows the recipe, so shadows are retrained with the defence too. What an attack then
still finds is what the defence does not hide.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from attacks.training.private import PrivateTraining
from attacks.training.recipe import TwinRecipe
from attacks.training.regularised import with_dropout, without_batch_norm
from attacks.training.stack import TrainingConfig

DECAY: Final = 3.0
# Early stopping keeps this share of the epochs.
SHORTER: Final = 0.2
DROPOUT: Final = 0.5
SMOOTHING: Final = 0.3
EPSILON: Final = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingDefence:
    """One way to train.

    ``title``: for a reader. ``apply`` gives the recipe with the defence. ``private``: the training
    that spends a privacy budget, if the defence is one.
    """

    name: str
    title: str
    apply: Callable[[TwinRecipe], TwinRecipe]
    private: PrivateTraining | None = None


def weight_decay(recipe: TwinRecipe, *, decay: float = DECAY) -> TwinRecipe:
    """AdamW's decay of the matrices, in both trainings."""
    return _both(
        recipe, f"weight decay {decay:g}", lambda config: replace(config, weight_decay=decay)
    )


def early_stopping(recipe: TwinRecipe, *, share: float = SHORTER) -> TwinRecipe:
    """A schedule of fewer epochs, the rate annealed over them, in both trainings.

    The share is fixed beforehand: watching a held-out set would take records from the members.
    """
    return _both(
        recipe,
        f"{share:.0%} of the epochs",
        lambda config: replace(config, epochs=max(1, round(share * config.epochs))),
    )


def dropout(recipe: TwinRecipe, *, share: float = DROPOUT) -> TwinRecipe:
    """Dropout after every activation."""
    return replace(
        recipe,
        name=f"{recipe.name}, dropout {share:g}",
        architecture=functools.partial(with_dropout, recipe.architecture, share),
    )


def label_smoothing(recipe: TwinRecipe, *, share: float = SMOOTHING) -> TwinRecipe:
    """Targets that are never certain, in both trainings."""
    return _both(
        recipe, f"label smoothing {share:g}", lambda config: replace(config, label_smoothing=share)
    )


def no_batch_norm(recipe: TwinRecipe) -> TwinRecipe:
    """The network without batch norm, which ties every record to its batch's statistics."""
    return replace(
        recipe,
        name=f"{recipe.name}, no batch norm",
        architecture=functools.partial(without_batch_norm, recipe.architecture),
    )


def dp_sgd(recipe: TwinRecipe, *, private: PrivateTraining) -> TwinRecipe:
    """DP-SGD on the network without batch norm; the polynomial twin is trained directly."""
    return replace(
        no_batch_norm(recipe),
        name=f"{recipe.name}, DP-SGD at epsilon {private.epsilon:g}",
        procedure=private,
    )


def _both(
    recipe: TwinRecipe, change: str, apply: Callable[[TrainingConfig], TrainingConfig]
) -> TwinRecipe:
    """The recipe with both trainings changed; its name says how."""
    return replace(
        recipe,
        name=f"{recipe.name}, {change}",
        relu=apply(recipe.relu),
        polynomial=apply(recipe.polynomial),
    )


PRIVATE: Final = PrivateTraining(epsilon=EPSILON)

TRAINING_DEFENCES: Final[tuple[TrainingDefence, ...]] = (
    TrainingDefence(
        name="weight-decay", title=f"weight decay {DECAY:g} on matrices", apply=weight_decay
    ),
    TrainingDefence(
        name="early-stopping", title=f"{SHORTER:.0%} of the epochs", apply=early_stopping
    ),
    TrainingDefence(name="dropout", title=f"dropout of {DROPOUT:.0%}", apply=dropout),
    TrainingDefence(
        name="label-smoothing", title=f"label smoothing of {SMOOTHING:g}", apply=label_smoothing
    ),
    TrainingDefence(name="no-batch-norm", title="no batch norm", apply=no_batch_norm),
    TrainingDefence(
        name="dp-sgd",
        title=f"DP-SGD at ε = {EPSILON:g}, δ = {PRIVATE.delta:g}, without batch norm",
        apply=functools.partial(dp_sgd, private=PRIVATE),
        private=PRIVATE,
    ),
)
