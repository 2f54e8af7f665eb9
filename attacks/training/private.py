"""DP-SGD with Opacus: both twins trained so that no single member can change them much.

    members ──Poisson sample──► gradient of each record ──clip to C──► sum + N(0, σ²C²) ──► step
                                        Opacus                           its accountant ──► ε at δ

Source: Abadi et al. 2016 (arXiv:1607.00133). The polynomial twin could be distilled from the ReLU
network, and its activations could be fitted to what members do. Both would look at members without
the accountant's knowledge. So the twin is trained directly, from the same fresh weights, and its
activations are fitted to noise. Publishing both twins spends both budgets.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from types import ModuleType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from attacks.core.records import Records
from attacks.errors import AbilityError, ShadowError
from attacks.training.recipe import PairTrainer, TwinRecipe
from attacks.training.stack import AfterStep, Stack, tensors, with_model_axis

_NEEDS: Final = "Opacus is not installed: pip install 'he-infer[dp]'"
# Records of noise that the twin's activations are fitted to.
_PUBLIC_RECORDS: Final = 512
_ACCOUNTANT: Final = "rdp"
# The search for the noise stops this close below the ε asked for.
_TOLERANCE: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateTraining:
    """(``epsilon``, ``delta``) differential privacy for adding or removing one member.

    ``clip``: C, the longest gradient of one record. ``batch``: members in a step, on average.
    ``epochs``, ``rate``: of Adam, which only sees noisy gradients. The noise is drawn from the
    seed, so that experiments repeat. The seed of a model that is published has to stay secret.
    Raises ShadowError for numbers that make no sense.
    """

    epsilon: float
    delta: float = 1e-4
    clip: float = 1.0
    batch: int = 100
    epochs: int = 60
    rate: float = 0.015

    def __post_init__(self) -> None:
        if not (self.epsilon > 0 and 0 < self.delta < 1 and self.clip > 0 and self.rate > 0):
            raise ShadowError("epsilon, clip and rate are positive, delta lies in (0, 1)")
        if self.epochs < 1 or self.batch < 2:
            raise ShadowError("training needs at least one epoch and two records in a batch")

    @property
    def description(self) -> str:
        return f"DP-SGD {sorted(asdict(self).items())}"

    def steps(self, members: int) -> int:
        return self.epochs * max(1, members // self.batch)

    def noise_multiplier(self, members: int) -> float:
        """σ that spends at most ``epsilon`` by Opacus' Rényi accountant (Mironov 2017).

        Raises AbilityError without Opacus, ShadowError if no noise is enough, or if δ is so large
        that publishing a random member would satisfy it.
        """
        if self.delta * members >= 1:
            raise ShadowError(
                f"delta {self.delta:g} is no privacy for {members} members: take less than "
                f"{1 / members:.2g}"
            )
        search = _opacus("opacus.accountants.utils").get_noise_multiplier
        rate, steps = self.sampling_rate(members), self.steps(members)
        return _noise_for(search, self.epsilon, self.delta, rate, steps)

    def spent(self, members: int) -> float:
        """ε that the whole training spends: the accountant's figure, which no data changes."""
        accountant = _opacus("opacus.accountants").create_accountant(mechanism=_ACCOUNTANT)
        accountant.history = [
            (self.noise_multiplier(members), self.sampling_rate(members), self.steps(members))
        ]
        return _epsilon(accountant, self.delta)

    def sampling_rate(self, members: int) -> float:
        """The probability that a step takes a member."""
        return min(1.0, self.batch / members)

    def least_members(self, recipe: TwinRecipe) -> int:
        return 2

    def trainer(self, recipe: TwinRecipe, shape: tuple[int, ...], members: int) -> PairTrainer:
        """Both twins of every model, each private by itself; the recipe's two trainings are not
        used. Raises ShadowError for batch norm, AbilityError without Opacus, else as
        :class:`Procedure` states."""
        noise = self.noise_multiplier(members)
        public = _public(recipe, shape)

        def pair(fresh: nn.Module, own: Records, seed: int) -> Iterator[nn.Module]:
            twin = recipe.replacement.network(fresh.eval(), public)
            bounds = recipe.replacement.bounds(Stack.of([twin]))
            for network, after in ((fresh, None), (twin, bounds)):
                yield train_privately(network, own, self, noise=noise, seed=seed, after_step=after)[
                    0
                ]

        return pair


def train_privately(
    network: nn.Module,
    members: Records,
    config: PrivateTraining,
    *,
    noise: float,
    seed: int,
    after_step: AfterStep | None = None,
) -> tuple[nn.Module, float]:
    """Train ``network`` in place by DP-SGD on ``members``; give it back with the ε it spent.

    ``noise``: σ, in units of the clipping norm. Each step takes every member with probability
    batch/members, which is what the accountant assumes. ``after_step`` sees parameters with a
    model axis in front, (1, …). Raises ShadowError for a network with batch norm or with a
    parameter that no record has a gradient for, AbilityError without Opacus.
    """
    mixing = [path for path, m in network.named_modules() if isinstance(m, _BatchNorm)]
    if mixing:
        raise ShadowError(
            f"{', '.join(mixing)} mixes the records of a batch, so no gradient belongs to one "
            "record: take the network without batch norm (without_batch_norm)"
        )
    sampled = _opacus("opacus.grad_sample").GradSampleModule
    private = _opacus("opacus.optimizers").DPOptimizer
    accountant = _opacus("opacus.accountants").create_accountant(mechanism=_ACCOUNTANT)
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    inputs, labels = tensors(members)
    rate = config.sampling_rate(len(members))
    with _opacus_warnings(), _constant_buffers(network):
        # Not strict: the interval of a polynomial activation was a buffer, but is never learnt.
        wrapped = sampled(network.train(), loss_reduction="sum", strict=False)
        optimiser = private(
            torch.optim.Adam(network.parameters(), lr=config.rate),
            noise_multiplier=noise,
            max_grad_norm=config.clip,
            expected_batch_size=max(1, round(rate * len(members))),
            generator=generator,
        )
        optimiser.attach_step_hook(accountant.get_optimizer_hook_fn(sample_rate=rate))
        for _ in range(config.steps(len(members))):
            chosen = torch.as_tensor(np.flatnonzero(rng.random(len(members)) < rate))
            optimiser.zero_grad()
            if len(chosen):
                logits = wrapped(inputs[chosen])
                loss = functional.cross_entropy(logits, labels[chosen], reduction="sum")
                loss.backward()  # type: ignore[no-untyped-call]
            else:
                # A step without records is noise alone, and counts like any other.
                for parameter in network.parameters():
                    parameter.grad_sample = torch.zeros(0, *parameter.shape)  # type: ignore[attr-defined]
            optimiser.step()
            if after_step is not None:
                with torch.no_grad():
                    after_step(with_model_axis(dict(network.named_parameters())))
        spent = _epsilon(accountant, config.delta)
        wrapped.to_standard_module()
    return network.eval(), spent


def _public(recipe: TwinRecipe, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Uniform noise over the inputs' range, which no member could have changed."""
    noise = np.random.default_rng(0).uniform(recipe.low, recipe.high, (_PUBLIC_RECORDS, *shape))
    return noise.astype(np.float32)


@cache
def _noise_for(
    search: Callable[..., float], epsilon: float, delta: float, rate: float, steps: int
) -> float:
    """The search takes seconds, and every model of a stack asks it the same."""
    try:
        with _opacus_warnings():
            return float(
                search(
                    target_epsilon=epsilon,
                    target_delta=delta,
                    sample_rate=rate,
                    steps=steps,
                    accountant=_ACCOUNTANT,
                    epsilon_tolerance=min(_TOLERANCE, epsilon / 10),
                )
            )
    except ValueError as error:
        raise ShadowError(f"no noise gives epsilon {epsilon:g}: {error}") from error


def _epsilon(accountant: Any, delta: float) -> float:
    with _opacus_warnings():
        spent = float(accountant.get_epsilon(delta=delta))
    if not math.isfinite(spent):
        raise ShadowError("the accountant finds no finite epsilon: raise the noise or delta")
    return spent


def _opacus(module: str) -> ModuleType:
    try:
        with _opacus_warnings():
            return importlib.import_module(module)
    except ImportError as error:
        raise AbilityError(_NEEDS) from error


@contextmanager
def _constant_buffers(network: nn.Module) -> Iterator[None]:
    """Makes buffers plain attributes within the block.

    Opacus refuses layers with both buffers and parameters, since most of them, such as batch norm,
    change their buffers with the data.
    """
    held = [
        (module, name, module._buffers.pop(name))
        for module in network.modules()
        for name in list(module._buffers)
    ]
    for module, name, value in held:
        module.__dict__[name] = value
    try:
        yield
    finally:
        for module, name, value in held:
            del module.__dict__[name]
            module.register_buffer(name, value)


@contextmanager
def _opacus_warnings() -> Iterator[None]:
    """Silences Opacus' warnings about its own use of torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
