"""Training that leaks less: each variant changes what it says, and both twins with it."""

from __future__ import annotations

import functools
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from attacks.core.records import Records
from attacks.errors import ShadowError
from attacks.oracles.recipes import mlp, standard_recipe
from attacks.training.cache import ShadowCache
from attacks.training.recipe import train_twins
from attacks.training.regularised import with_dropout, without_batch_norm
from attacks.training.stack import TrainingConfig, initialised, losses, membership_masks
from attacks.training.variants import TRAINING_DEFENCES, TrainingDefence, dropout, early_stopping
from he_infer import datasets

RECIPE = standard_recipe("digits")


@pytest.fixture(scope="module")
def pool() -> Records:
    train, _ = datasets.digits()
    return Records(inputs=train.flat_inputs()[:400].astype(np.float64), labels=train.labels[:400])


def test_names_are_unique_and_recipes_differ(pool: Records) -> None:
    assert len({defence.name for defence in TRAINING_DEFENCES}) == len(TRAINING_DEFENCES)
    digests = {defence.apply(RECIPE).digest(pool) for defence in TRAINING_DEFENCES}
    assert len(digests | {RECIPE.digest(pool)}) == len(TRAINING_DEFENCES) + 1


@pytest.mark.parametrize("defence", TRAINING_DEFENCES, ids=lambda d: str(d.name))
def test_recipes_travel_to_other_processes(defence: TrainingDefence, pool: Records) -> None:
    recipe = defence.apply(standard_recipe("digits"))
    # What bounds the twin is a module-level function as well, so all of it can be pickled.
    assert pickle.loads(pickle.dumps(recipe)).digest(pool) == recipe.digest(pool)


@pytest.mark.parametrize(
    "defence",
    [
        pytest.param(each, id=each.name, marks=[pytest.mark.slow] if each.private else [])
        for each in TRAINING_DEFENCES
    ],
)
def test_every_variant_trains_both_twins_through_the_cache(
    defence: TrainingDefence, pool: Records, tmp_path: Path
) -> None:
    masks = membership_masks(2, len(pool), np.random.default_rng(0))
    recipe = defence.apply(RECIPE)
    cache = ShadowCache(folder=tmp_path, chunk=2)
    told: list[tuple[int, int]] = []
    trained = cache.train(
        recipe,
        pool,
        masks,
        seeds=[1, 2],
        progress=lambda _, done, total: told.append((done, total)),
    )
    again = cache.train(recipe, pool, masks, seeds=[1, 2])
    for one, two in ((trained.relu, again.relu), (trained.polynomial, again.polynomial)):
        np.testing.assert_array_equal(one.logits(pool.inputs), two.logits(pool.inputs))
        right = one.logits(pool.inputs).argmax(axis=2) == pool.labels
        assert right[masks].mean() > 0.5
    assert told[-1][0] == told[-1][1] == len(told)


def test_fewer_epochs_is_the_same_training_cut_short(pool: Records) -> None:
    masks = membership_masks(2, len(pool), np.random.default_rng(0))
    short = early_stopping(RECIPE, share=0.1)
    by_hand = replace(
        RECIPE,
        relu=TrainingConfig(epochs=3, batch=50, rate=0.01),
        polynomial=TrainingConfig(epochs=2, batch=50, rate=0.002, distillation=0.5),
    )
    ours, theirs = (train_twins(r, pool, masks, seeds=[1, 2]) for r in (short, by_hand))
    np.testing.assert_array_equal(ours.relu.logits(pool.inputs), theirs.relu.logits(pool.inputs))


def test_smoothed_labels_are_a_mixture_of_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, 4, generator=generator)
    labels = torch.randint(0, 4, (2, 6), generator=generator)
    config = TrainingConfig(epochs=1, batch=2, rate=0.1, label_smoothing=0.3)
    targets = 0.7 * functional.one_hot(labels, 4) + 0.3 / 4
    wanted = -(targets * logits.log_softmax(dim=2)).sum(dim=2).mean(dim=1)
    torch.testing.assert_close(losses(logits, labels, None, config), wanted)
    with pytest.raises(ShadowError, match=r"label_smoothing lies in \[0, 1\)"):
        replace(config, label_smoothing=1.0)


def test_dropout_draws_in_training_only() -> None:
    network = with_dropout(functools.partial(mlp, 64, 16, 10), 0.5)
    x = torch.rand(8, 64)
    network.eval()
    assert torch.equal(network(x), network(x))
    plain = mlp(64, 16, 10).eval()
    plain.load_state_dict({n: v for n, v in network.state_dict().items()})
    assert torch.equal(plain(x), network(x))
    network.train()
    assert not torch.equal(network(x), network(x))
    for share in (0.0, 1.0):
        with pytest.raises(ShadowError, match="between 0 and 1"):
            dropout(RECIPE, share=share).architecture()
    with pytest.raises(ShadowError, match="no"):
        with_dropout(functools.partial(nn.Linear, 4, 2), 0.5)


def test_without_batch_norm_every_record_stands_alone() -> None:
    (network,) = initialised(
        functools.partial(without_batch_norm, functools.partial(mlp, 64, 16, 10)), [0]
    )
    (plain,) = initialised(functools.partial(mlp, 64, 16, 10), [0])
    x = torch.rand(8, 64)
    torch.testing.assert_close(network.train()(x)[:3], network(x[:3]))
    assert not any(isinstance(m, nn.BatchNorm1d) for m in network.modules())
    # The layer before has a bias now, and nothing else was drawn differently.
    first, other = network.get_submodule("1"), plain.get_submodule("1")
    assert isinstance(first, nn.Linear) and isinstance(other, nn.Linear)
    assert first.bias is not None and torch.equal(first.weight, other.weight)


def test_a_bias_that_was_there_stays() -> None:
    def architecture() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3))

    torch.manual_seed(0)
    network = without_batch_norm(architecture)
    torch.manual_seed(0)
    conv, ours = architecture().get_submodule("0"), network.get_submodule("0")
    assert torch.equal(conv.bias, ours.bias)  # type: ignore[arg-type]
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 3, 6, 6)
