"""DP-SGD: clipped, noised, accounted for, and nothing looks at members beside it."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from attacks.core.records import Records
from attacks.core.roc import epsilon_lower_bound, rates_at, threshold_for
from attacks.errors import AbilityError, ShadowError
from attacks.membership.statistics import gaussian_online, logit_confidence
from attacks.oracles.recipes import mlp, standard_recipe
from attacks.training.private import PrivateTraining, train_privately
from attacks.training.recipe import train_twins
from attacks.training.stack import Stack, membership_masks
from attacks.training.variants import dp_sgd
from he_infer import datasets
from he_infer.activations.layer import PolynomialActivation

QUICK = PrivateTraining(epsilon=8.0, epochs=10, batch=50, rate=0.03)


@pytest.fixture(scope="module")
def pool() -> Records:
    train, _ = datasets.digits()
    return Records(inputs=train.flat_inputs()[:400].astype(np.float64), labels=train.labels[:400])


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 8), PolynomialActivation.quadratic(8), nn.Linear(8, 10))


def test_the_budget_is_kept_and_nearly_spent() -> None:
    spent = QUICK.spent(200)
    assert 7.9 <= spent <= 8.0
    assert replace(QUICK, epsilon=1.0).noise_multiplier(200) > QUICK.noise_multiplier(200)


def test_the_accountant_counts_what_was_done(pool: Records) -> None:
    config = replace(QUICK, epochs=2)
    noise = config.noise_multiplier(400)
    _, spent = train_privately(plain(), pool, config, noise=noise, seed=0)
    assert spent == pytest.approx(config.spent(400), rel=1e-9)


def test_epsilon_against_the_gaussian_mechanism() -> None:
    # One step over all records is one Gaussian mechanism, whose exact (ε, δ) is known in closed
    # form (Balle and Wang 2018, theorem 8); the Rényi accountant may only lie above it.
    from scipy.stats import norm

    config = PrivateTraining(epsilon=2.0, delta=1e-5, epochs=1, batch=100)
    sigma = config.noise_multiplier(100)
    mu = 1 / sigma

    def delta(epsilon: float) -> float:
        return float(
            norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
        )

    assert delta(2.0) <= 1e-5
    assert delta(0.7 * 2.0) > 1e-5


def test_one_record_moves_a_step_by_the_clipping_norm_at_most(pool: Records) -> None:
    # Hardly any noise, one step with everybody: the weights' sum of clipped gradients is what
    # plain arithmetic gives.
    config = PrivateTraining(epsilon=8.0, epochs=1, batch=400, clip=0.5, rate=1.0)
    torch.manual_seed(0)
    network = plain()
    expected = [torch.zeros_like(p) for p in network.parameters()]
    longest = 0.0
    for x, y in zip(pool.inputs, pool.labels, strict=True):
        logits = network(torch.as_tensor(x[None], dtype=torch.float32))
        loss = nn.functional.cross_entropy(logits, torch.as_tensor([y]))
        own = torch.autograd.grad(loss, list(network.parameters()))
        norm = math.sqrt(sum(float(g.square().sum()) for g in own))
        longest = max(longest, norm)
        for total, gradient in zip(expected, own, strict=True):
            total += gradient * min(1.0, config.clip / (norm + 1e-6)) / 400
    assert longest > config.clip
    trained = train_privately(network, pool, config, noise=1e-9, seed=0)[0]
    for parameter, wanted in zip(trained.parameters(), expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-3, atol=1e-6)


def test_noise_has_the_size_that_was_accounted_for(pool: Records) -> None:
    config = PrivateTraining(epsilon=8.0, epochs=1, batch=400, clip=0.5)
    torch.manual_seed(0)
    network = plain()
    trained = train_privately(network, pool, config, noise=50.0, seed=0)[0]
    gradients = torch.cat([p.grad.flatten() for p in trained.parameters() if p.grad is not None])
    # 50 · 0.5 / 400 per entry; 600 entries give the deviation to 3 %, the signal is below 1/400.
    assert float(gradients.std()) == pytest.approx(50 * 0.5 / 400, rel=0.12)


@pytest.mark.slow
def test_activations_are_fitted_to_nothing_that_a_member_changed(pool: Records) -> None:
    recipe = dp_sgd(standard_recipe("digits"), private=replace(QUICK, epochs=4))
    given = []

    def network(model: nn.Module, sample: np.ndarray) -> nn.Module:
        given.append(sample)
        return recipe.replacement.network(model, sample)

    watched = replace(recipe, replacement=replace(recipe.replacement, network=network))
    masks = np.stack([np.arange(400) < 200, np.arange(400) >= 200])
    train_twins(watched, pool, masks, seeds=[1, 2])
    np.testing.assert_array_equal(given[0], given[1])
    known = {record.tobytes() for record in pool.inputs.astype(np.float32)}
    assert not any(record.tobytes() in known for record in given[0])


@pytest.mark.slow
def test_private_twins_learn_and_know_little_of_their_members(pool: Records) -> None:
    masks = membership_masks(4, 400, np.random.default_rng(0))
    private = train_twins(
        dp_sgd(standard_recipe("digits"), private=QUICK), pool, masks, seeds=range(4)
    )
    for stack in (private.relu, private.polynomial):
        logits = stack.logits(pool.inputs)
        assert (logits.argmax(axis=2) == pool.labels)[masks].mean() > 0.6
        assert attack_bound(stack, pool, masks) <= QUICK.epsilon


def attack_bound(stack: Stack, pool: Records, masks: np.ndarray) -> float:
    """ε that LiRA refutes, over the first of each pair, thresholds from their opposites."""
    phi = logit_confidence(stack.logits(pool.inputs), pool.labels)
    hits = members = alarms = others = 0
    for target in range(0, len(masks), 2):
        rest = [i for i in range(len(masks)) if i // 2 != target // 2]
        score, rehearsal = (
            gaussian_online(phi[i], phi[rest], masks[rest], fixed_variance=True)
            for i in (target, target + 1)
        )
        point = rates_at(score, masks[target], threshold_for(rehearsal[~masks[target + 1]], 0.1))
        hits += round(point.tpr.value * point.tpr.count)
        members += point.tpr.count
        alarms += round(point.fpr.value * point.fpr.count)
        others += point.fpr.count
    return epsilon_lower_bound(hits, members, alarms, others).value


def test_buffers_come_back(pool: Records) -> None:
    network = plain()
    before = {name: value.clone() for name, value in network.named_buffers()}
    trained, _ = train_privately(network, pool, replace(QUICK, epochs=1), noise=1.0, seed=0)
    after = dict(trained.named_buffers())
    assert before and before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    # As it was before Opacus: it can be stacked, copied and saved.
    assert not any(hasattr(p, "grad_sample") for p in trained.parameters())
    assert len(Stack.of([trained])) == 1


def test_an_empty_step_is_noise_alone(pool: Records) -> None:
    config = replace(QUICK, batch=2, epochs=1, delta=1e-4)
    # Steps of two members on average: one in seven has none.
    train_privately(plain(), pool.select(slice(0, 100)), config, noise=1.0, seed=0)


def test_batch_norm_is_refused(pool: Records) -> None:
    with pytest.raises(ShadowError, match=r"2 mixes the records of a batch.*without_batch_norm"):
        train_privately(mlp(64, 8, 10), pool, QUICK, noise=1.0, seed=0)


def test_without_opacus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus.accountants.utils", None)
    with pytest.raises(AbilityError, match=r"pip install 'he-infer\[dp\]'"):
        QUICK.noise_multiplier(200)


def test_numbers_that_promise_nothing_are_refused() -> None:
    with pytest.raises(ShadowError, match="delta lies in"):
        replace(QUICK, delta=0.0)
    with pytest.raises(ShadowError, match=r"delta 0\.01 is no privacy for 200 members"):
        replace(QUICK, delta=0.01).noise_multiplier(200)
    with pytest.raises(ShadowError, match="no noise gives epsilon"):
        replace(QUICK, epsilon=1e-9, delta=1e-9).noise_multiplier(200)
