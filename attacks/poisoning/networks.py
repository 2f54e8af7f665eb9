"""Networks as learners: a stack of them trained at once, and heads on frozen features.

sets of records ──► one pool, memberships ──train_stack──► a network for each set
features (T, N, F) ──full-batch Adam──► T linear heads         transfer learning
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from attacks.core.arrays import Bools, Floats, Ints
from attacks.core.records import Records
from attacks.core.result import AttackResult
from attacks.errors import DataSplitError, ShadowError
from attacks.poisoning.outcome import Crafting, compare
from attacks.poisoning.setting import PoisoningData
from attacks.training.stack import TrainingConfig, initialised, train_stack

_FORWARD_RECORDS: Final = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A trained network; answers in float64, a part of the records at a time."""

    module: nn.Module

    def logits(self, inputs: Floats) -> Floats:
        """(B, *shape) → (B, classes)."""
        return evaluate(self.module, inputs)

    def predict(self, inputs: Floats) -> Ints:
        """(B, *shape) → (B,) labels."""
        found: Ints = self.logits(inputs).argmax(axis=1)
        return found

    def embed(self, inputs: Tensor) -> Tensor:
        """(B, *shape) → (B, features), with a gradient: what the last linear layer reads."""
        module = self.module.double().eval()
        with _read_by(last_linear(module)) as seen:
            module(inputs)
        return torch.cat(seen)

    def features(self, inputs: Floats) -> Floats:
        """The same for arrays, without a gradient and a part of the records at a time."""
        with _read_by(last_linear(self.module)) as seen:
            self.logits(inputs)
        return np.concatenate([part.numpy() for part in seen])


@contextmanager
def _read_by(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the inputs of ``layer``, (B, features), in the forward passes of the block."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen.append(given[0].flatten(1))

    hook = layer.register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        hook.remove()


def last_linear(module: nn.Module) -> nn.Linear:
    """The linear layer that comes last; DataSplitError if there is none."""
    found = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not found:
        raise DataSplitError("the network has no linear layer whose features could be looked at")
    return found[-1]


def evaluate(module: nn.Module, inputs: Floats) -> Floats:
    """What ``module``, brought to float64 and evaluation mode, gives for (B, *shape)."""
    module.double().eval()
    with torch.no_grad():
        parts = [
            module(torch.as_tensor(inputs[at : at + _FORWARD_RECORDS], dtype=torch.float64))
            for at in range(0, len(inputs), _FORWARD_RECORDS)
        ]
    result: Floats = torch.cat(parts).numpy()
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLearner:
    """Trains ``architecture`` from fresh weights. ``description``: how reports call it."""

    architecture: Callable[[], nn.Module]
    config: TrainingConfig
    description: str

    def fit(self, records: Records, rng: np.random.Generator) -> Network:
        """One network; errors as ``fit_all``'s."""
        return self.fit_all([records], rng)[0]

    def fit_all(self, sets: Sequence[Records], rng: np.random.Generator) -> tuple[Network, ...]:
        """A network for each set, all from the same seed, sets of one size trained as one stack.

        All start from the same weights. Raises ShadowError for a network that does not learn,
        DataSplitError for a set smaller than a batch.
        """
        seed = int(rng.integers(2**31))
        found: dict[int, Network] = {}
        for size in sorted({len(records) for records in sets}):
            chosen = [index for index, records in enumerate(sets) if len(records) == size]
            pool, members = pooled_sets([sets[index] for index in chosen])
            seeds = [seed] * len(chosen)
            stack = train_stack(
                initialised(self.architecture, seeds), pool, members, self.config, seeds=seeds
            )
            found |= {index: Network(stack.module(place)) for place, index in enumerate(chosen)}
        return tuple(found[index] for index in range(len(sets)))


def pooled_sets(sets: Sequence[Records]) -> tuple[Records, Bools]:
    """Sets of one size in one pool, and memberships (sets, pool); records in common stand once.

    Raises DataSplitError for sets that differ in size or in the shape of a record.
    """
    first = sets[0]
    inputs, labels = [first.inputs], [first.labels]
    rows = [np.arange(len(first))]
    end = len(first)
    for records in sets[1:]:
        if records.shape != first.shape or len(records) != len(first):
            raise DataSplitError("sets that are pooled hold equally many records of one shape")
        axes = tuple(range(1, first.inputs.ndim))
        same = (records.inputs == first.inputs).all(axis=axes) & (records.labels == first.labels)
        fresh = int(np.count_nonzero(~same))
        row = np.arange(len(first))
        row[~same] = np.arange(end, end + fresh)
        rows.append(row)
        inputs.append(records.inputs[~same])
        labels.append(records.labels[~same])
        end += fresh
    pool = Records(inputs=np.concatenate(inputs), labels=np.concatenate(labels))
    members = np.zeros((len(sets), len(pool)), dtype=np.bool_)
    for place, row in enumerate(rows):
        members[place, row] = True
    return pool, members


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadTraining:
    """Full-batch Adam on features brought to one scale, until the training set is fitted."""

    steps: int = 600
    rate: float = 0.05

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.rate > 0:
            raise ShadowError(f"a head takes steps and a rate, got {self.steps} and {self.rate}")


@dataclass(frozen=True, slots=True, eq=False)
class Heads:
    """T linear layers: ``weight`` (T, F, classes), ``bias`` (T, 1, classes) on features less
    ``mean`` (T, 1, F) over ``scale`` (T, 1, 1).

    One scale for all features: a scale for each would blow up those that hardly vary in a small
    training set, which no retrained layer does."""

    weight: Floats
    bias: Floats
    mean: Floats
    scale: Floats

    def predict(self, features: Floats) -> Ints:
        """(T, B, F) → (T, B)."""
        scores = ((features - self.mean) / self.scale) @ self.weight + self.bias
        found: Ints = scores.argmax(axis=2)
        return found

    @property
    def trainable(self) -> int:
        """Weights of one head, biases included."""
        return int(self.weight[0].size + self.bias[0].size)


def train_heads(
    features: Floats,
    labels: Ints,
    *,
    classes: int,
    training: HeadTraining,
) -> Heads:
    """T heads at once from zero weights, (T, N, F) and (T, N); each sees its own records only."""
    if features.ndim != 3 or labels.shape != features.shape[:2] or not features.size:
        raise DataSplitError(
            f"features of shape {features.shape} do not fit labels of shape {labels.shape}"
        )
    mean = features.mean(axis=1, keepdims=True)
    spread = np.sqrt(((features - mean) ** 2).mean(axis=(1, 2), keepdims=True))
    scale = np.where(spread > 0, spread, 1.0)
    given = torch.as_tensor((features - mean) / scale, dtype=torch.float32)
    wanted = torch.as_tensor(labels).flatten()
    count, records, width = features.shape
    weight = torch.zeros(count, width, classes, requires_grad=True)
    bias = torch.zeros(count, 1, classes, requires_grad=True)
    optimiser = torch.optim.Adam([weight, bias], lr=training.rate)
    for _ in range(training.steps):
        logits = torch.baddbmm(bias, given, weight).flatten(0, 1)  # (T · N, classes)
        # Summed over models, so that each model's gradient is its own.
        loss = nn.functional.cross_entropy(logits, wanted, reduction="sum") / records
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    layer = [part.detach().double().numpy() for part in (weight, bias)]
    return Heads(layer[0], layer[1], mean, scale)


def with_and_without(
    attack: Crafting, learner: NetworkLearner, data: PoisoningData, rng: np.random.Generator
) -> AttackResult:
    """Train on the clean set and on the crafted one, from the same seed, and compare."""
    started = time.perf_counter()
    crafted = attack.craft(data, rng)
    clean, poisoned = learner.fit_all([data.train, crafted.training.records], rng)
    return compare(
        poisoned,
        clean,
        crafted,
        data,
        attack=attack.name,
        learner=learner.description,
        started=started,
        notes=(attack.note,),
    )
