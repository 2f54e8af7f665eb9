"""Trained models on disk, by content: an interrupted run resumes, a stale file is never used.

A file holds one chunk of models. Its name is the hash of data, recipe, memberships and seeds;
inside is a checksum of the weights. What does not match is trained again, with a warning.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import joblib
import numpy as np
import safetensors
import safetensors.torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.errors import DataSplitError
from attacks.progress import Progress
from attacks.records import Records
from attacks.training.recipe import TrainedTwins, TwinRecipe, train_twins
from attacks.training.stack import Stack

_CHECKSUM: Final = "sha256"


class StaleCacheWarning(UserWarning):
    """A file in the cache was damaged or foreign; its models are trained again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowCache:
    """Chunks of ``chunk`` models each in ``folder``; ``jobs`` processes train chunks in parallel.

    Processes come from joblib, so ``joblib.parallel_config`` swaps in Dask or Ray.
    """

    folder: Path
    chunk: int = 16
    jobs: int = 1

    def train(
        self,
        recipe: TwinRecipe,
        pool: Records,
        is_member: NDArray[np.bool_],
        *,
        seeds: Sequence[int],
        progress: Progress | None = None,
    ) -> TrainedTwins:
        """Like ``train_twins``, reusing every chunk that is there and saving each one when done."""
        if len(seeds) != len(is_member) or not len(seeds):
            raise DataSplitError(f"{len(seeds)} seeds for {len(is_member)} models")
        self.folder.mkdir(parents=True, exist_ok=True)
        base = recipe.digest(pool)
        tasks = []
        for first in range(0, len(seeds), self.chunk):
            rows = is_member[first : first + self.chunk]
            own = [int(seed) for seed in seeds[first : first + self.chunk]]
            tasks.append((self.folder / f"{chunk_digest(base, rows, own)}.safetensors", rows, own))
        missing = [task for task in tasks if _load(task[0], recipe, pool, task[1]) is None]
        done = len(tasks) - len(missing)
        jobs = (joblib.delayed(_train_and_save)(recipe, pool, *task) for task in missing)
        finished: Iterator[None] = joblib.Parallel(n_jobs=self.jobs, return_as="generator")(jobs)
        for count, _ in enumerate(finished, start=done + 1):
            if progress is not None:
                progress("train shadow models", count, len(tasks))
        parts = [_load(path, recipe, pool, rows) for path, rows, _ in tasks]
        return TrainedTwins.joined([part for part in parts if part is not None])


def chunk_digest(base: str, is_member: NDArray[np.bool_], seeds: Sequence[int]) -> str:
    """SHA-256 that names a chunk: the recipe's digest, memberships and seeds."""
    hashed = hashlib.sha256(base.encode())
    hashed.update(str(is_member.shape).encode() + np.packbits(is_member).tobytes())
    hashed.update(repr(list(seeds)).encode())
    return hashed.hexdigest()


def _train_and_save(
    recipe: TwinRecipe,
    pool: Records,
    path: Path,
    is_member: NDArray[np.bool_],
    seeds: list[int],
) -> None:
    """One task: runs in another process where joblib says so, hence a module-level function."""
    _save(path, train_twins(recipe, pool, is_member, seeds=seeds))


def _save(path: Path, twins: TrainedTwins) -> None:
    tensors = _flat(twins)
    data = safetensors.torch.save(tensors, metadata={_CHECKSUM: _checksum(tensors)})
    # Written beside its place and renamed, so that a file is whole or not there.
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def _load(
    path: Path, recipe: TwinRecipe, pool: Records, is_member: NDArray[np.bool_]
) -> TrainedTwins | None:
    """The chunk, or None if it is not there or not what it claims to be."""
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            stated = (file.metadata() or {}).get(_CHECKSUM)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, safetensors.SafetensorError):
        stated, tensors = None, {}
    if not tensors or stated != _checksum(tensors):
        warnings.warn(
            f"{path.name} is damaged: its models are trained again", StaleCacheWarning, stacklevel=3
        )
        path.unlink(missing_ok=True)
        return None
    relu = _stack(recipe.architecture(), tensors, "relu")
    # The twin's layers follow from the ReLU network; its weights come from the file.
    members = pool.inputs[is_member[0]].astype(np.float32)
    template = recipe.replacement.network(relu.module(0), members)
    return TrainedTwins(relu, _stack(template, tensors, "polynomial"))


def _flat(twins: TrainedTwins) -> dict[str, Tensor]:
    return {
        f"{kind}/{group}/{name}": value.contiguous()
        for kind, stack in (("relu", twins.relu), ("polynomial", twins.polynomial))
        for group, values in (("parameters", stack.parameters), ("buffers", stack.buffers))
        for name, value in values.items()
    }


def _stack(template: nn.Module, tensors: dict[str, Tensor], kind: str) -> Stack:
    def group(name: str) -> dict[str, Tensor]:
        prefix = f"{kind}/{name}/"
        return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}

    return Stack(template, group("parameters"), group("buffers"))


def _checksum(tensors: dict[str, Tensor]) -> str:
    hashed = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].numpy()
        hashed.update(f"{name} {array.dtype} {array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()
