"""The cache resumes, never hands out another recipe's models, and notices damage."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from joblib.parallel import ThreadingBackend
from torch import nn

from attacks.core.records import Records
from attacks.errors import ShadowError
from attacks.oracles.recipes import CRYPTODL, mlp
from attacks.training import cache as cache_module
from attacks.training.cache import ShadowCache, StaleCacheWarning
from attacks.training.recipe import TrainedTwins, TwinRecipe
from attacks.training.stack import TrainingConfig, membership_masks
from he_infer import datasets
from tests.paths import CHECKOUT

RECIPE = TwinRecipe(
    name="small",
    architecture=functools.partial(mlp, 64, 8, 10),
    relu=TrainingConfig(epochs=4, batch=40, rate=0.02),
    polynomial=TrainingConfig(epochs=2, batch=40, rate=0.005, distillation=0.5),
    replacement=CRYPTODL,
)
SEEDS = [0, 1, 2, 3]


@pytest.fixture(scope="module")
def pool() -> Records:
    train, _ = datasets.digits()
    return Records(inputs=train.flat_inputs()[:400].astype(np.float64), labels=train.labels[:400])


@pytest.fixture(scope="module")
def masks(pool: Records) -> np.ndarray:
    return membership_masks(4, len(pool), np.random.default_rng(5))


def same(a: TrainedTwins, b: TrainedTwins, pool: Records) -> bool:
    return bool(
        (a.relu.logits(pool.inputs) == b.relu.logits(pool.inputs)).all()
        and (a.polynomial.logits(pool.inputs) == b.polynomial.logits(pool.inputs)).all()
    )


def test_chunks_are_reused_without_training(
    tmp_path: Path, pool: Records, masks: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ShadowCache(folder=tmp_path, chunk=2)
    first = cache.train(RECIPE, pool, masks, seeds=SEEDS)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    monkeypatch.setattr(cache_module, "train_twins", lambda *a, **k: pytest.fail("trained again"))
    assert same(first, cache.train(RECIPE, pool, masks, seeds=SEEDS), pool)


def test_a_missing_chunk_alone_is_trained(tmp_path: Path, pool: Records, masks: np.ndarray) -> None:
    cache = ShadowCache(folder=tmp_path, chunk=2)
    first = cache.train(RECIPE, pool, masks, seeds=SEEDS)
    kept, lost = sorted(tmp_path.glob("*.safetensors"))
    stamp = kept.stat().st_mtime_ns
    lost.unlink()
    assert same(first, cache.train(RECIPE, pool, masks, seeds=SEEDS), pool)
    assert kept.stat().st_mtime_ns == stamp


def test_other_data_recipe_memberships_or_seeds_have_other_names(
    pool: Records, masks: np.ndarray
) -> None:
    altered = pool.inputs.copy()
    altered[0, 0] += 1e-9
    other_data = Records(inputs=altered, labels=pool.labels)
    digests = {
        RECIPE.digest(pool),
        RECIPE.digest(other_data),
        replace(RECIPE, relu=replace(RECIPE.relu, epochs=5)).digest(pool),
        replace(RECIPE, architecture=functools.partial(mlp, 64, 9, 10)).digest(pool),
        replace(RECIPE, replacement=replace(CRYPTODL, description="other")).digest(pool),
    }
    assert len(digests) == 5
    base = RECIPE.digest(pool)
    names = {
        cache_module.chunk_digest(base, masks, SEEDS),
        cache_module.chunk_digest(base, ~masks, SEEDS),
        cache_module.chunk_digest(base, masks, [3, 2, 1, 0]),
    }
    assert len(names) == 3


class Activated(nn.Module):
    """A forward of its own, which no printed list of layers shows."""

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 8), nn.Linear(8, 10)
        self.sharpness = sharpness

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.second(torch.relu(self.sharpness * self.first(x)))
        return result


def test_a_changed_forward_is_another_recipe(pool: Records) -> None:
    soft = replace(RECIPE, architecture=functools.partial(Activated, 1.0))
    sharp = replace(RECIPE, architecture=functools.partial(Activated, 2.0))
    assert soft.digest(pool) == soft.digest(pool) != sharp.digest(pool)


def test_a_file_under_another_name_is_not_used(
    tmp_path: Path, pool: Records, masks: np.ndarray
) -> None:
    cache = ShadowCache(folder=tmp_path, chunk=4)
    first = cache.train(RECIPE, pool, masks, seeds=SEEDS)
    (own,) = tmp_path.glob("*.safetensors")
    cache.train(RECIPE, pool, ~masks, seeds=SEEDS)
    (other,) = set(tmp_path.glob("*.safetensors")) - {own}
    other.replace(own)
    with pytest.warns(StaleCacheWarning, match="holds other models"):
        again = cache.train(RECIPE, pool, masks, seeds=SEEDS)
    assert same(first, again, pool)


def test_a_chunk_that_cannot_be_read_back_is_an_error(
    tmp_path: Path, pool: Records, masks: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_save", lambda *a: None)
    with pytest.raises(ShadowError, match="cannot be read back"):
        ShadowCache(folder=tmp_path).train(RECIPE, pool, masks, seeds=SEEDS)


def test_a_folder_that_cannot_be_made_is_an_error(
    tmp_path: Path, pool: Records, masks: np.ndarray
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ShadowError, match="cannot keep models"):
        ShadowCache(folder=tmp_path / "file" / "below").train(RECIPE, pool, masks, seeds=SEEDS)


def test_a_full_disk_keeps_what_was_finished(
    tmp_path: Path, pool: Records, masks: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[object] = []
    save = cache_module._save

    def once(chunk: cache_module._Chunk, twins: TrainedTwins) -> None:
        if saved:
            raise OSError(28, "No space left on device")
        saved.append(chunk)
        save(chunk, twins)

    monkeypatch.setattr(cache_module, "_save", once)
    with pytest.raises(ShadowError, match="No space left on device: make room"):
        ShadowCache(folder=tmp_path, chunk=2).train(RECIPE, pool, masks, seeds=SEEDS)
    assert len(list(tmp_path.iterdir())) == 1


def test_progress_counts_the_epochs_of_all_chunks(
    tmp_path: Path, pool: Records, masks: np.ndarray
) -> None:
    seen: list[tuple[int, int]] = []
    ShadowCache(folder=tmp_path, chunk=2).train(
        RECIPE, pool, masks, seeds=SEEDS, progress=lambda stage, d, n: seen.append((d, n))
    )
    assert seen == [(epoch, 12) for epoch in range(1, 13)]


class CountingBackend(ThreadingBackend):  # type: ignore[misc]
    """Stands in for any backend that somebody registers with joblib."""

    tasks = 0

    def submit(self, *args: object, **kwargs: object) -> object:
        type(self).tasks += 1
        return super().submit(*args, **kwargs)


def test_a_backend_of_joblib_trains_the_same_models(
    tmp_path: Path, pool: Records, masks: np.ndarray
) -> None:
    here = ShadowCache(folder=tmp_path / "a", chunk=2).train(RECIPE, pool, masks, seeds=SEEDS)
    joblib.register_parallel_backend("counting", CountingBackend)
    with joblib.parallel_config(backend="counting", n_jobs=2):
        there = ShadowCache(folder=tmp_path / "b", chunk=2).train(RECIPE, pool, masks, seeds=SEEDS)
    assert CountingBackend.tasks >= 2
    assert same(here, there, pool)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign"])
def test_a_damaged_file_is_trained_again(
    tmp_path: Path, pool: Records, masks: np.ndarray, damage: str
) -> None:
    cache = ShadowCache(folder=tmp_path, chunk=4)
    first = cache.train(RECIPE, pool, masks, seeds=SEEDS)
    (file,) = tmp_path.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[-100] ^= 1
    damaged = {"flip": bytes(data), "cut": bytes(data[: len(data) // 2]), "empty": b""}
    file.write_bytes(damaged.get(damage, b"x" * 200))
    with pytest.warns(StaleCacheWarning, match="trained again"):
        again = cache.train(RECIPE, pool, masks, seeds=SEEDS)
    assert same(first, again, pool)


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {checkout!r})
from tests.attacks.training.test_cache import RECIPE, SEEDS, ShadowCache, digits_pool
from attacks.training.stack import membership_masks
import numpy as np
pool = digits_pool()
masks = membership_masks(40, len(pool), np.random.default_rng(5))

def hold(stage, done, total):
    if len(list(Path({folder!r}).glob("*.safetensors"))) >= 2:
        print("in the third", flush=True)
        time.sleep(3600)

cache = ShadowCache(folder=Path({folder!r}), chunk=2)
cache.train(RECIPE, pool, masks, seeds=range(40), progress=hold)
"""


def digits_pool() -> Records:
    train, _ = datasets.digits()
    return Records(inputs=train.flat_inputs()[:400].astype(np.float64), labels=train.labels[:400])


@pytest.mark.slow
def test_a_killed_run_resumes(tmp_path: Path) -> None:
    code = SCRIPT.format(checkout=str(CHECKOUT), folder=str(tmp_path))
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "in the third\n"
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert 2 <= len(kept) < 20
    pool = digits_pool()
    masks = membership_masks(40, len(pool), np.random.default_rng(5))
    twins = ShadowCache(folder=tmp_path, chunk=2).train(RECIPE, pool, masks, seeds=range(40))
    assert len(twins) == 40
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())


@pytest.mark.slow
def test_processes_give_the_same_models(tmp_path: Path, pool: Records, masks: np.ndarray) -> None:
    one = ShadowCache(folder=tmp_path / "a", chunk=2).train(RECIPE, pool, masks, seeds=SEEDS)
    two = ShadowCache(folder=tmp_path / "b", chunk=2, jobs=2).train(
        RECIPE, pool, masks, seeds=SEEDS
    )
    assert same(one, two, pool)
