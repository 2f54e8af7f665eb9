"""What the groups of reference rows share: records, models in the clear, and the same served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

import he_infer
from attacks.core.records import Records
from attacks.oracles.plaintext import TorchOracle
from attacks.oracles.remote import RemoteOracle, serve
from attacks.training.recipe import TrainedTwins, TwinRecipe, train_twins
from he_infer import zoo
from he_infer.datasets import Dataset


def flat(data: Dataset, count: int | None = None) -> Records:
    """The first ``count`` records of a data set, or all of them, flat and scaled to [0, 1]."""
    inputs = data.flat_inputs()[:count].astype(np.float64)
    return Records(inputs=inputs, labels=data.labels[:count].astype(np.int64))


def zoo_records(name: str) -> Records:
    """The test records of a network of the zoo, in the shape that it takes."""
    held = zoo.test_set(name)
    inputs = zoo.inputs(name, held).astype(np.float64)
    return Records(inputs=inputs, labels=held.labels.astype(np.int64))


def shuffled(records: Records, seed: int | list[int]) -> Records:
    return records.select(np.random.default_rng(seed).permutation(len(records)))


def in_the_clear(
    network: nn.Module, name: str, shape: tuple[int, ...], *, dtype: torch.dtype = torch.float64
) -> TorchOracle:
    """A network on inputs in [0, 1], without encryption."""
    return TorchOracle(network, name=name, input_shape=shape, low=0.0, high=1.0, dtype=dtype)


def zoo_oracle(name: str) -> TorchOracle:
    """A network of the zoo, without encryption."""
    return in_the_clear(zoo.load(name), name, zoo.inputs(name, zoo.test_set(name)).shape[1:])


@contextmanager
def served(
    network: nn.Module, sample: Any, name: str, *, batch: int = 1024
) -> Iterator[RemoteOracle]:
    """A network behind a real encrypted service that takes ``batch`` records a query."""
    plan = he_infer.compile(network, sample, batch=batch, name=name)
    with serve(plan, low=0.0, high=1.0) as service:
        yield service


def trained(recipe: TwinRecipe, members: Records, *, seed: int = 0) -> TrainedTwins:
    """One network and its polynomial twin, trained on all of ``members``."""
    everybody = np.ones((1, len(members)), dtype=np.bool_)
    return train_twins(recipe, members, everybody, seeds=[seed])
