"""How each network of the zoo is trained: plain numbers, nothing that needs a framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from he_infer.errors import TrainingError


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Random affine maps: each image gets its own, drawn uniformly from ± these bounds.

    ``rotate_degrees``, ``shear_degrees``; ``translate_pixels`` in both directions; ``scale``
    as a fraction (0.1 means 0.9 … 1.1).
    """

    rotate_degrees: float
    translate_pixels: float
    scale: float
    shear_degrees: float

    def __post_init__(self) -> None:
        bounds = (self.rotate_degrees, self.translate_pixels, self.scale, self.shear_degrees)
        if min(bounds) < 0 or self.scale >= 1 or max(self.rotate_degrees, self.shear_degrees) > 45:
            raise TrainingError("augmentation: bounds must be ≥ 0, scale < 1, angles ≤ 45 degrees")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that, with a seed and the training data, determines the weights.

    AdamW with a one-cycle learning rate that peaks at ``peak_rate``; cross entropy smoothed by
    ``label_smoothing``; ``range_weight`` times the penalty on activation inputs outside
    ±``range_limit``; after every step each quadratic keeps |a| ≥ ``min_leading`` and
    |b/2a| ≤ ``max_shift``. The last ``settle_epochs`` see the images as they are: interpolation
    blurs, and batch statistics taken from blurred images do not fit sharp ones.
    ``accuracy_floor`` is what the test set has to reach.
    """

    name: str
    data: str
    input_shape: tuple[int, ...]
    epochs: int
    batch: int
    peak_rate: float
    weight_decay: float
    label_smoothing: float
    range_limit: float
    range_weight: float
    min_leading: float
    max_shift: float
    accuracy_floor: float
    augmentation: Augmentation | None
    settle_epochs: int

    def __post_init__(self) -> None:
        if not 0 <= self.settle_epochs <= self.epochs:
            raise TrainingError("settle_epochs must lie between 0 and epochs")
        if self.epochs < 1 or self.batch < 2:
            raise TrainingError("a recipe needs at least one epoch and two records in a batch")
        if not (self.peak_rate > 0 and self.range_limit > 0 and self.min_leading > 0):
            raise TrainingError("peak_rate, range_limit and min_leading must be positive")
        if self.max_shift <= 0 or min(self.weight_decay, self.range_weight) < 0:
            raise TrainingError("max_shift must be positive, weight_decay and range_weight ≥ 0")
        if not (0 <= self.label_smoothing < 1 and 0 <= self.accuracy_floor <= 1):
            raise TrainingError("label_smoothing and accuracy_floor are fractions")


_AUGMENTATION: Final = Augmentation(
    rotate_degrees=10.0, translate_pixels=2.0, scale=0.1, shear_degrees=8.0
)
_TUTORIAL_CNN: Final = Recipe(
    name="tutorial-cnn",
    data="mnist",
    input_shape=(1, 28, 28),
    epochs=30,
    batch=128,
    peak_rate=6e-3,
    weight_decay=1e-2,
    label_smoothing=0.05,
    range_limit=6.0,
    range_weight=1.0,
    min_leading=0.03,
    max_shift=8.0,
    accuracy_floor=0.987,
    augmentation=_AUGMENTATION,
    settle_epochs=3,
)
_DIGITS_MLP: Final = replace(
    _TUTORIAL_CNN,
    name="digits-mlp",
    data="digits",
    input_shape=(64,),
    epochs=120,
    batch=64,
    peak_rate=1e-2,
    label_smoothing=0.1,
    accuracy_floor=0.96,
    augmentation=replace(
        _AUGMENTATION, rotate_degrees=8.0, translate_pixels=0.8, shear_degrees=6.0
    ),
    settle_epochs=20,
)
RECIPES: Final[Mapping[str, Recipe]] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            _TUTORIAL_CNN,
            replace(_TUTORIAL_CNN, name="mnist-lola", accuracy_floor=0.993),
            replace(_TUTORIAL_CNN, name="mnist-deep", epochs=25, accuracy_floor=0.995),
            _DIGITS_MLP,
        )
    }
)
NAMES: Final[tuple[str, ...]] = tuple(RECIPES)


def recipe(name: str) -> Recipe:
    """The recipe called ``name``; raises TrainingError if there is none."""
    try:
        return RECIPES[name]
    except KeyError as error:
        known = ", ".join(NAMES)
        raise TrainingError(f"no model called {name!r}: choose one of {known}") from error
