"""Trained models on disk, named by what decides their weights.

A file holds one chunk of models. Its name is the hash of data, recipe, memberships and seeds. The
file holds the same hash and a checksum of the weights. If they do not match, the chunk is trained
again, with a warning. So an interrupted run resumes, and a stale file is never used.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import joblib
import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from attacks.core.arrays import Bools
from attacks.core.records import Records
from attacks.errors import DataSplitError, ShadowError
from attacks.progress import Progress
from attacks.training.recipe import TrainedTwins, TwinRecipe, train_twins
from attacks.training.stack import Stack

_CHECKSUM: Final = "sha256"
_CONTENT: Final = "content"
_STAGE: Final = "train shadow models"
# torch has one random stream and one number of threads per process, so where a backend runs
# tasks in threads, they train one after the other.
_ONE_AT_A_TIME: Final = threading.Lock()


class StaleCacheWarning(UserWarning):
    """A file in the cache was damaged or foreign; its models are trained again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    """The models from number ``first`` on. ``path``: named by all that decides their weights."""

    first: int
    path: Path
    is_member: Bools
    seeds: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowCache:
    """Chunks of ``chunk`` models each in ``folder``; ``jobs`` processes train chunks in parallel.

    Processes come from joblib. With ``jobs`` 1, ``joblib.parallel_config`` decides how many there
    are and by which backend, such as Dask or Ray; without it there is one process. Each trains on
    one thread, so that results do not depend on their number.
    """

    folder: Path
    chunk: int = 16
    jobs: int = 1

    def train(
        self,
        recipe: TwinRecipe,
        pool: Records,
        is_member: Bools,
        *,
        seeds: Sequence[int],
        progress: Progress | None = None,
    ) -> TrainedTwins:
        """Like ``train_twins``, reusing every chunk that is there and saving each one when done.

        Warns with StaleCacheWarning of files that are damaged or not what their name says.
        Raises ShadowError if a chunk cannot be written or read back.
        """
        if len(seeds) != len(is_member) or not len(seeds):
            raise DataSplitError(f"{len(seeds)} seeds for {len(is_member)} models")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ShadowError(f"cannot keep models in {self.folder}: {error.strerror}") from error
        chunks = list(self._chunks(recipe.digest(pool), is_member, seeds))
        found = {chunk.path: _load(chunk, recipe, pool) for chunk in chunks}
        missing = [chunk for chunk in chunks if found[chunk.path] is None]
        self._train(missing, recipe, pool, progress, total=len(chunks))
        parts = []
        for chunk in chunks:
            part = found[chunk.path] or _load(chunk, recipe, pool)
            if part is None:
                raise ShadowError(f"{chunk.path} cannot be read back after it was written")
            parts.append(part)
        return TrainedTwins.joined(parts)

    def _chunks(self, base: str, is_member: Bools, seeds: Sequence[int]) -> Iterator[_Chunk]:
        for first in range(0, len(seeds), self.chunk):
            rows = is_member[first : first + self.chunk]
            own = [int(seed) for seed in seeds[first : first + self.chunk]]
            path = self.folder / f"{chunk_digest(base, rows, own)}.safetensors"
            yield _Chunk(first=first, path=path, is_member=rows, seeds=own)

    def _train(
        self,
        missing: Sequence[_Chunk],
        recipe: TwinRecipe,
        pool: Records,
        progress: Progress | None,
        *,
        total: int,
    ) -> None:
        """Train and save ``missing``; progress counts the epochs of all ``total`` chunks."""
        each = recipe.relu.epochs + recipe.polynomial.epochs
        done = (total - len(missing)) * each
        jobs = None if self.jobs == 1 else self.jobs
        if joblib.effective_n_jobs(jobs) == 1:
            for chunk in missing:
                _train_and_save(recipe, pool, chunk, _within(progress, done, total * each))
                done += each
            return
        tasks = (joblib.delayed(_train_and_save)(recipe, pool, chunk, None) for chunk in missing)
        finished: Iterator[None] = joblib.Parallel(n_jobs=jobs, return_as="generator")(tasks)
        for count, _ in enumerate(finished, start=1):
            if progress is not None:
                progress(_STAGE, done + count * each, total * each)


def chunk_digest(base: str, is_member: Bools, seeds: Sequence[int]) -> str:
    """SHA-256 that names a chunk: the recipe's digest, memberships and seeds."""
    hashed = hashlib.sha256(base.encode())
    hashed.update(str(is_member.shape).encode() + np.packbits(is_member).tobytes())
    hashed.update(repr(list(seeds)).encode())
    return hashed.hexdigest()


def _within(progress: Progress | None, done: int, whole: int) -> Progress | None:
    """Turns the epochs of one chunk into epochs of all of them."""
    if progress is None:
        return None
    epochs = itertools.count(done + 1)
    return lambda stage, done, total: progress(_STAGE, next(epochs), whole)


def _train_and_save(
    recipe: TwinRecipe, pool: Records, chunk: _Chunk, progress: Progress | None
) -> None:
    """One task: runs in another process where joblib says so, hence a module-level function."""
    with _ONE_AT_A_TIME:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            twins = train_twins(
                recipe,
                pool,
                chunk.is_member,
                seeds=chunk.seeds,
                progress=progress,
                first=chunk.first,
            )
        finally:
            torch.set_num_threads(threads)
    try:
        _save(chunk, twins)
    except OSError as error:
        raise ShadowError(
            f"cannot write {chunk.path}: {error.strerror or error}: make room and run again, what "
            "was finished before is kept"
        ) from error


def _save(chunk: _Chunk, twins: TrainedTwins) -> None:
    tensors = _flat(twins)
    metadata = {_CHECKSUM: _checksum(tensors), _CONTENT: chunk.path.stem}
    data = safetensors.torch.save(tensors, metadata=metadata)
    # Written beside its place and renamed, so that a file is whole or not there.
    descriptor, scratch = tempfile.mkstemp(dir=chunk.path.parent, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(scratch).replace(chunk.path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def _load(chunk: _Chunk, recipe: TwinRecipe, pool: Records) -> TrainedTwins | None:
    """The chunk, or None if it is not there or not what it claims to be."""
    path = chunk.path
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            stated = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, safetensors.SafetensorError):
        stated, tensors = {}, {}
    intact = tensors and stated.get(_CHECKSUM) == _checksum(tensors)
    if not intact or stated.get(_CONTENT) != chunk.path.stem:
        what = "holds other models" if intact else "is damaged"
        warnings.warn(
            f"{path.name} {what}: these are trained again", StaleCacheWarning, stacklevel=3
        )
        path.unlink(missing_ok=True)
        return None
    relu = _stack(recipe.architecture(), tensors, "relu")
    # The twin's layers follow from the ReLU network; its weights come from the file.
    members = pool.inputs[chunk.is_member[0]].astype(np.float32)
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
