"""The cache resumes, never hands out another recipe's models, and notices damage."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from attacks.oracles.recipes import CRYPTODL, mlp, standard_recipe
from attacks.records import Records
from attacks.training import cache as cache_module
from attacks.training.cache import ShadowCache, StaleCacheWarning
from attacks.training.recipe import TrainedTwins, TwinRecipe
from attacks.training.stack import TrainingConfig, membership_masks
from he_infer import datasets

CHECKOUT = Path(__file__).resolve().parents[3]
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
import sys
from pathlib import Path
sys.path.insert(0, {checkout!r})
from tests.attacks.training.test_cache import RECIPE, SEEDS, ShadowCache, digits_pool
from attacks.training.stack import membership_masks
import numpy as np
pool = digits_pool()
masks = membership_masks(64, len(pool), np.random.default_rng(5))
ShadowCache(folder=Path({folder!r}), chunk=2).train(RECIPE, pool, masks, seeds=range(64))
"""


def digits_pool() -> Records:
    train, _ = datasets.digits()
    return Records(inputs=train.flat_inputs()[:400].astype(np.float64), labels=train.labels[:400])


def test_a_killed_run_resumes(tmp_path: Path) -> None:
    code = SCRIPT.format(checkout=str(CHECKOUT), folder=str(tmp_path))
    child = subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*.safetensors"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it finished before it could be killed"
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert 2 <= len(kept) < 32
    pool = digits_pool()
    masks = membership_masks(64, len(pool), np.random.default_rng(5))
    twins = ShadowCache(folder=tmp_path, chunk=2).train(RECIPE, pool, masks, seeds=range(64))
    assert len(twins) == 64
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())


def test_processes_give_the_same_models(tmp_path: Path, pool: Records, masks: np.ndarray) -> None:
    one = ShadowCache(folder=tmp_path / "a", chunk=2).train(RECIPE, pool, masks, seeds=SEEDS)
    two = ShadowCache(folder=tmp_path / "b", chunk=2, jobs=2).train(
        RECIPE, pool, masks, seeds=SEEDS
    )
    difference = one.polynomial.logits(pool.inputs) - two.polynomial.logits(pool.inputs)
    assert abs(difference).max() < 1e-2  # threads sum in another order


def test_the_twin_of_the_standard_recipe_keeps_its_accuracy(tmp_path: Path) -> None:
    train, test = datasets.digits()
    pool = Records(inputs=train.flat_inputs()[:1000].astype(np.float64), labels=train.labels[:1000])
    masks = membership_masks(4, 1000, np.random.default_rng(0))
    twins = ShadowCache(folder=tmp_path).train(standard_recipe("digits"), pool, masks, seeds=SEEDS)
    inputs = test.flat_inputs().astype(np.float64)
    relu, polynomial = (
        (stack.logits(inputs).argmax(axis=2) == test.labels).mean()
        for stack in (twins.relu, twins.polynomial)
    )
    # 4 models on 359 records: the standard error of each is about 0.6 %.
    assert relu > 0.92 and polynomial > relu - 0.03
