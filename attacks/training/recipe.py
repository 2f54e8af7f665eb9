"""A recipe makes two networks from the same members and seed: a ReLU one and its polynomial twin.

    members, seed ──► ReLU network ──replace activations──► polynomials ──distil, fine-tune──► twin

Shadow models of either twin go through the same steps as their target. Otherwise the comparison
would measure training instead of encryption.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from attacks.core.arrays import Bools, Floats
from attacks.core.records import Records
from attacks.errors import ShadowError
from attacks.progress import Progress
from attacks.training.stack import (
    AfterStep,
    Stack,
    TrainingConfig,
    check_trained,
    initialised,
    member_indices,
    train_stack,
)

# Seeds of the second phase's batch order, apart from the first's.
_SECOND_PHASE: Final = 1_000_003
# Goes into the cache's key: raise it when the same recipe trains to other weights.
_PROCEDURE: Final = 1
_PROBES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """How ReLUs become polynomials.

    ``network``: from a model and its members to its twin, not yet tuned. ``bounds``: from the
    stack before tuning to what keeps its polynomials fit to compile. ``description`` goes into the
    cache's key, so change it with the code.
    """

    network: Callable[[nn.Module, NDArray[np.float32]], nn.Module]
    bounds: Callable[[Stack], AfterStep]
    description: str


# (fresh network, its members, seed) → the ReLU network, then its polynomial twin.
PairTrainer = Callable[[nn.Module, Records, int], Iterator[nn.Module]]


class Procedure(Protocol):
    """Another way to train both twins than stack by stack, such as privately or on inputs that
    an adversary moved. One network is trained after the other.

    ``description`` goes into the cache's key. It says all that decides the weights beside the
    recipe, the data and the seeds.
    """

    @property
    def description(self) -> str: ...

    def least_members(self, recipe: TwinRecipe) -> int:
        """How many members a model needs at least."""
        ...

    def trainer(self, recipe: TwinRecipe, shape: tuple[int, ...], members: int) -> PairTrainer:
        """What trains one pair, for models with so many ``members`` of this ``shape``.

        Raises ShadowError for a network that does not learn.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinRecipe:
    """How a ReLU network and its polynomial twin are made.

    ``architecture`` makes an untrained ReLU network, which ``relu`` trains from scratch.
    ``replacement`` makes its twin, which ``polynomial`` trains, by distillation from the ReLU
    network. ``low``, ``high``: the range of the inputs. A ``procedure``, if given, does the
    training instead.
    """

    name: str
    architecture: Callable[[], nn.Module]
    relu: TrainingConfig
    polynomial: TrainingConfig
    replacement: Replacement
    low: float = 0.0
    high: float = 1.0
    procedure: Procedure | None = None

    def digest(self, pool: Records) -> str:
        """SHA-256 over everything but memberships and seeds that decides the weights.

        A network with a forward of its own can change while its layers look the same, so what
        an untrained one answers to a few of the records is part of it.
        """
        (network,) = initialised(self.architecture, [0])
        description = {
            "procedure": _PROCEDURE,
            "architecture": str(network),
            "state": {n: list(v.shape) for n, v in network.state_dict().items()},
            "answers": _answers(network.double().eval(), pool.inputs[:_PROBES]),
            "relu": asdict(self.relu),
            "polynomial": asdict(self.polynomial),
            "replacement": self.replacement.description,
            "versions": [torch.__version__, np.__version__],
        }
        if self.procedure is not None:
            # Procedures see the inputs' range; the two stacks do not.
            description["procedure"] = [_PROCEDURE, self.procedure.description, self.low, self.high]
        hashed = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
        for array in (pool.inputs, pool.labels):
            hashed.update(str(array.shape).encode())
            hashed.update(np.ascontiguousarray(array).tobytes())
        return hashed.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class TrainedTwins:
    """Two stacks of M models: model i of both has the same members and seed."""

    relu: Stack
    polynomial: Stack

    def __len__(self) -> int:
        return len(self.relu)

    @classmethod
    def joined(cls, parts: Sequence[TrainedTwins]) -> TrainedTwins:
        """Chunks in order, as one."""
        return cls(_joined([p.relu for p in parts]), _joined([p.polynomial for p in parts]))


def train_twins(
    recipe: TwinRecipe,
    pool: Records,
    is_member: Bools,
    *,
    seeds: Sequence[int],
    progress: Progress | None = None,
    first: int = 0,
) -> TrainedTwins:
    """Train both twins of M models, (M, N) memberships, one seed each.

    ``first``: number of the first of them, for messages.
    Raises ShadowError or DataSplitError as ``train_stack`` does.
    """
    if recipe.procedure is not None:
        return _one_by_one(recipe.procedure, recipe, pool, is_member, seeds, progress, first)
    fresh = initialised(recipe.architecture, seeds)
    relu = train_stack(
        fresh, pool, is_member, recipe.relu, seeds=seeds, progress=progress, first=first
    )
    replaced = [
        recipe.replacement.network(relu.module(i), pool.inputs[row].astype(np.float32))
        for i, row in enumerate(is_member)
    ]
    polynomial = train_stack(
        replaced,
        pool,
        is_member,
        recipe.polynomial,
        seeds=[seed + _SECOND_PHASE for seed in seeds],
        targets=relu.logits(pool.inputs),
        after_step=recipe.replacement.bounds(Stack.of(replaced)),
        progress=progress,
        first=first,
    )
    return TrainedTwins(relu, polynomial)


def _one_by_one(
    procedure: Procedure,
    recipe: TwinRecipe,
    pool: Records,
    is_member: Bools,
    seeds: Sequence[int],
    progress: Progress | None,
    first: int,
) -> TrainedTwins:
    """Every pair by ``procedure``. Progress is spread evenly over the networks and counts the
    recipe's epochs, since a cache adds up the epochs of all its chunks."""
    fresh = initialised(recipe.architecture, seeds)
    least = procedure.least_members(recipe)
    members = member_indices(pool, is_member, fresh, seeds, batch=least)
    train = procedure.trainer(recipe, pool.shape, members.shape[1])
    epochs, networks = recipe.relu.epochs + recipe.polynomial.epochs, 2 * len(seeds)
    trained: list[nn.Module] = []
    for model, row, seed in zip(fresh, members, seeds, strict=True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seed))  # of dropout, where there is any
            for network in train(model, pool.select(row), int(seed)):
                before = len(trained) * epochs // networks
                trained.append(network)
                for epoch in range(before, len(trained) * epochs // networks):
                    if progress is not None:
                        progress(f"train {networks} networks", epoch + 1, epochs)
    twins = TrainedTwins(Stack.of(trained[::2]), Stack.of(trained[1::2]))
    for stack in (twins.relu, twins.polynomial):
        check_trained(stack, pool, is_member, first=first)
    return twins


def _answers(network: nn.Module, probes: Floats) -> list[str]:
    """The network's answers, in so few digits that the order of summation does not show."""
    with torch.inference_mode():
        answers = network(torch.as_tensor(probes, dtype=torch.float64))
    return [f"{value:.8g}" for value in answers.flatten().tolist()]


def _joined(stacks: Sequence[Stack]) -> Stack:
    if not stacks:
        raise ShadowError("there is nothing to join")
    first = stacks[0]
    return Stack(
        first.template,
        {n: torch.cat([s.parameters[n] for s in stacks]) for n in first.parameters},
        {n: torch.cat([s.buffers[n] for s in stacks]) for n in first.buffers},
    )
