"""A model card: what was trained, how, on what, and what was measured."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from he_infer.errors import DataError
from he_infer.zoo.recipes import Augmentation, Recipe, recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """``correct`` of ``n_test`` test records, by the polynomial network in plaintext float32.

    ``accuracy_interval``: Wilson's 95 % interval. ``selection``: how choices were made.
    ``activation_ranges``: least and greatest input of each activation over all training data.
    ``command`` trains it again. ``weights_sha256``: of the safetensors file.
    """

    name: str
    recipe: Recipe
    seed: int
    n_train: int
    n_test: int
    correct: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    selection: str
    activation_ranges: Mapping[str, tuple[float, float]]
    command: str
    weights_sha256: str

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.n_test or self.n_test < 1:
            raise DataError(f"{self.name}: {self.correct} of {self.n_test} is no accuracy")
        if not math.isclose(self.accuracy, self.correct / self.n_test):
            raise DataError(f"{self.name}: the card's accuracy is not its ratio of correct answers")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Read what :meth:`to_json` wrote; raises DataError for anything else."""
        try:
            fields: dict[str, Any] = json.loads(text)
            steps: dict[str, Any] = fields["recipe"]
            bounds = steps["augmentation"]
            steps["augmentation"] = None if bounds is None else Augmentation(**bounds)
            steps["input_shape"] = tuple(steps["input_shape"])
            fields["recipe"] = Recipe(**steps)
            low, high = fields["accuracy_interval"]
            fields["accuracy_interval"] = (low, high)
            fields["activation_ranges"] = {
                key: (least, most) for key, (least, most) in fields["activation_ranges"].items()
            }
            return cls(**fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError("not a model card: a field is missing or of the wrong kind") from error


def card(name: str) -> Card:
    """What was measured for ``name``.

    Raises TrainingError for an unknown name, DataError if the package holds no card for it.
    """
    path = resources.files("he_infer.zoo").joinpath("cards", f"{recipe(name).name}.json")
    if not path.is_file():
        raise DataError(f"the package holds no card for {name!r}")
    return Card.from_json(path.read_text(encoding="utf-8"))
