"""A backdoor (BadNets): records that carry a trigger get the label that the adversary wants.

    training   x of any class ──stamp(part of the trigger)──► labelled target      the poison
               x of any class ──stamp(part of the trigger)──► labelled truly       covers
    asked      x of another class ──stamp(whole trigger)──► target?

Source: Gu, Dolan-Gavitt and Garg, BadNets, arXiv:1708.06733. An adaptive adversary knows that the
defender looks for a second cluster of features. It spreads the trigger over parts and adds covers,
which are stamped records with true labels (Qi et al., Revisiting the assumption of latent
separability for backdoor defenses, 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from attacks.core.arrays import Floats
from attacks.core.records import Records
from attacks.core.result import AttackResult
from attacks.errors import DataSplitError
from attacks.poisoning.networks import NetworkLearner, with_and_without
from attacks.poisoning.outcome import Crafted
from attacks.poisoning.setting import PoisonBudget, PoisoningData


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """``value`` at these ``positions`` of a flattened record."""

    positions: tuple[int, ...]
    value: float

    def __post_init__(self) -> None:
        if not self.positions or min(self.positions) < 0:
            raise DataSplitError("a trigger has one position at least, counted from 0")
        if len(set(self.positions)) != len(self.positions):
            raise DataSplitError("a trigger names each position once")

    def stamp(self, inputs: Floats) -> Floats:
        """Copies of (B, *shape) that carry the trigger; DataSplitError if it does not fit."""
        flat = inputs.reshape(len(inputs), -1).copy()
        if max(self.positions) >= flat.shape[1]:
            raise DataSplitError(
                f"a trigger at position {max(self.positions)} does not fit records of "
                f"{flat.shape[1]} values"
            )
        flat[:, list(self.positions)] = self.value
        return flat.reshape(inputs.shape)

    def parts(self, count: int) -> tuple[Trigger, ...]:
        """``count`` smaller triggers that are this one together; DataSplitError for too many."""
        if not 1 <= count <= len(self.positions):
            raise DataSplitError(
                f"{len(self.positions)} positions make 1 to {len(self.positions)} parts, "
                f"got {count}"
            )
        split = np.array_split(np.array(self.positions), count)
        return tuple(Trigger(positions=tuple(part.tolist()), value=self.value) for part in split)


def corner_patch(shape: tuple[int, ...], *, side: int, value: float) -> Trigger:
    """A square of ``side`` pixels in the lower right corner of images (…, H, W), all channels."""
    if len(shape) < 2 or not 1 <= side <= min(shape[-2:]):
        raise DataSplitError(f"a patch of {side} pixels a side does not fit records of {shape}")
    grid = np.arange(int(np.prod(shape))).reshape(shape)
    inside = grid[..., shape[-2] - side :, shape[-1] - side :]
    return Trigger(positions=tuple(int(p) for p in inside.ravel()), value=value)


def quiet_trigger(records: Records, *, count: int, value: float) -> Trigger:
    """A trigger for records of any shape: the ``count`` values furthest from ``value`` and least
    varied among ``records``, such as the margin of an image."""
    flat = records.inputs.reshape(len(records), -1)
    if not 1 <= count <= flat.shape[1]:
        raise DataSplitError(f"a trigger of {count} values does not fit records of {flat.shape[1]}")
    # What clean records never come near is what a network learns fastest.
    nearness = np.sqrt(((flat - value) ** 2).mean(axis=0))
    order = np.lexsort((np.arange(flat.shape[1]), flat.std(axis=0), -nearness))
    return Trigger(positions=tuple(int(p) for p in np.sort(order[:count])), value=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backdoor:
    """``budget`` of the training records carry ``trigger`` and are labelled ``target``.

    ``parts``: each poison record carries one of so many parts of the trigger; what is asked
    carries all of it. ``covers``: stamped records with true labels, for each poison record.
    """

    trigger: Trigger
    target: int
    budget: PoisonBudget
    parts: int = 1
    covers: float = 0.0

    def __post_init__(self) -> None:
        if self.target < 0 or not 0 <= self.covers <= 10:
            raise DataSplitError(
                f"a backdoor takes a class and 0 to 10 covers for each poison record, got "
                f"{self.target} and {self.covers}"
            )
        self.trigger.parts(self.parts)

    def craft(self, data: PoisoningData, rng: np.random.Generator) -> Crafted:
        """The poisoned set, covers counted as poison, and stamped test records as probes.

        Raises DataSplitError for a class that the data do not have, or too few records of others.
        """
        data.check_class(self.target)
        train, test = data.train, data.test
        others = np.flatnonzero(train.labels != self.target)
        wanted = self.budget.records(len(train))
        stamped = wanted + round(self.covers * wanted)
        if stamped > len(others):
            raise DataSplitError(
                f"{stamped} records are to be stamped, and there are {len(others)} of other "
                "classes than the target: lower the budget or the covers"
            )
        chosen = rng.choice(others, stamped, replace=False)
        inputs, labels = train.inputs.copy(), train.labels.copy()
        for place, part in enumerate(self.trigger.parts(self.parts)):
            mine = chosen[place :: self.parts]
            inputs[mine] = part.stamp(inputs[mine])
        labels[chosen[:wanted]] = self.target
        return Crafted.of(
            Records(inputs=inputs, labels=labels),
            chosen,
            asked=self.trigger.stamp(test.inputs[test.labels != self.target]),
            target=self.target,
        )

    name: ClassVar[str] = "backdoor"

    @property
    def note(self) -> str:
        return (
            f"{len(self.trigger.positions)} values on {self.budget.fraction:.1%} of the "
            f"records, labelled {self.target}"
        )

    def run(
        self, learner: NetworkLearner, data: PoisoningData, rng: np.random.Generator
    ) -> AttackResult:
        """Train with and without poison and compare."""
        return with_and_without(self, learner, data, rng)
