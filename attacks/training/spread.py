"""Progress in a recipe's epochs, for procedures that train one network after the other."""

from __future__ import annotations

from attacks.progress import Progress
from attacks.training.recipe import TwinRecipe


class Spread:
    """Reports as many epochs as ``recipe`` has, evenly over ``networks`` finished networks.

    A cache adds up the epochs of all its chunks, so every way to train reports equally many.
    """

    def __init__(self, progress: Progress | None, recipe: TwinRecipe, *, networks: int) -> None:
        self._progress = progress
        self._epochs = recipe.relu.epochs + recipe.polynomial.epochs
        self._networks = networks
        self._finished = 0

    def one_more(self) -> None:
        """One network is trained."""
        before = self._finished * self._epochs // self._networks
        self._finished += 1
        after = self._finished * self._epochs // self._networks
        if self._progress is not None:
            for done in range(before, after):
                self._progress(f"train {self._networks} networks", done + 1, self._epochs)
