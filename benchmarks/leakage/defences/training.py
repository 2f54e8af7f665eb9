"""Rows on training that leaks less: LiRA against targets and shadows that all train so.

For each defence: how much AUC it takes away, paired by member and record with plain training; for
DP-SGD also the ε that LiRA refutes, beside the ε that the accountant states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from attacks.core.intervals import Estimate, bootstrap
from attacks.core.records import Records
from attacks.core.result import AttackResult
from attacks.core.roc import epsilon_lower_bound
from attacks.errors import AbilityError
from attacks.membership.likelihood import LiRAOnline
from attacks.membership.outcome import MembershipScores
from attacks.membership.pooling import paired_difference, pooled
from attacks.oracles.recipes import standard_recipe
from attacks.oracles.twins import POLYNOMIAL, RELU
from attacks.training.recipe import TwinRecipe, train_twins
from attacks.training.stack import Stack, membership_masks
from attacks.training.variants import TRAINING_DEFENCES, TrainingDefence, no_batch_norm
from benchmarks.leakage.membership import World
from benchmarks.leakage.setting import flat
from benchmarks.rows import Row
from he_infer import datasets

MODELS: Final = 12
POOL: Final = 1000
_LIRA: Final = "Carlini et al. 2022, LiRA with a fixed variance"
_SOURCES: Final = {
    "weight-decay": "Shokri et al. 2017: regularisation lowers leakage",
    "early-stopping": "Song and Mittal 2021: early stopping lowers leakage",
    "dropout": "Salem et al. 2019: dropout lowers leakage",
    "label-smoothing": "Kaya and Dumitras 2021: label smoothing raises leakage",
    "no-batch-norm": "no published figure for so small a network",
    "dp-sgd": "Abadi et al. 2016: bounded by epsilon",
}
_ALONE: Final = "no-batch-norm"
# The sign of the change that is published; weight decay's was measured without batch norm,
# which undoes the scale of the weights before it.
_SIGNS: Final[Mapping[str, int]] = {
    "early-stopping": -1,
    "dropout": -1,
    "label-smoothing": 1,
    "dp-sgd": -1,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """One twin under one way to train: LiRA's results on every target, and test accuracy."""

    results: Sequence[AttackResult]
    accuracy: Estimate

    @property
    def scores(self) -> list[MembershipScores]:
        return [result.artifact for result in self.results]

    def epsilon_bound(self) -> Estimate:
        """From all targets' rates at thresholds that were set on shadows."""
        tprs = [result.metrics["tpr_at_shadow_threshold"] for result in self.results]
        fprs = [result.metrics["fpr_at_shadow_threshold"] for result in self.results]
        return epsilon_lower_bound(*_counts(tprs), *_counts(fprs))


def rows() -> Iterator[Row]:
    """Two rows for each defence, ReLU and polynomial, and two more for each private one."""
    train, test = datasets.digits()
    pool, held_out = flat(train, POOL), flat(test)
    recipe = standard_recipe("digits")
    plain = measured(recipe, pool, held_out)
    # DP-SGD has to leave out batch norm, and that alone changes what a network remembers.
    without = measured(no_batch_norm(recipe), pool, held_out)
    for defence in TRAINING_DEFENCES:
        try:
            same = defence.name == _ALONE
            defended = without if same else measured(defence.apply(recipe), pool, held_out)
        except AbilityError as error:
            name = f"digits, {defence.title}"
            yield Row(name, _SOURCES[defence.name], reason=str(error))
            continue
        for twin in (RELU, POLYNOMIAL):
            alone = "" if defence.private is None else _without_batch_norm(without[twin])
            yield _difference(defence, twin, plain[twin], defended[twin], alone)
            if defence.private is not None:
                spent = defence.private.spent(POOL // 2)
                yield _bound(defence, twin, plain[twin], defended[twin], spent)


def measured(recipe: TwinRecipe, pool: Records, test: Records) -> dict[str, Measured]:
    """MODELS networks and their twins; the first of each pair is a target."""
    masks = membership_masks(MODELS, len(pool), np.random.default_rng(40))
    both = train_twins(recipe, pool, masks, seeds=range(MODELS))
    lira, found = LiRAOnline(fixed_variance=True), {}
    for twin, stack in ((RELU, both.relu), (POLYNOMIAL, both.polynomial)):
        world = World.of(stack, pool, masks)
        results = [
            lira.run(world.oracle(target), world.data(target), np.random.default_rng(target))
            for target in range(0, MODELS, 2)
        ]
        found[twin] = Measured(results=results, accuracy=_accuracy(stack, test))
    return found


def _accuracy(stack: Stack, test: Records) -> Estimate:
    """Mean over models; they share the test records, so models are what is resampled."""
    right = (stack.logits(test.inputs).argmax(axis=2) == test.labels).mean(axis=1)
    return bootstrap(
        lambda chosen: float(right[chosen].mean()),
        len(right),
        np.random.default_rng(41),
        method="bootstrap by model",
    )


def _difference(
    defence: TrainingDefence, twin: str, plain: Measured, defended: Measured, alone: str
) -> Row:
    """``alone``: what a part of the defence does by itself, for the reader."""
    rng = np.random.default_rng(42)
    change = paired_difference(plain.scores, defended.scores, "auc", rng)
    before, after = (pooled(each.scores, rng)[0] for each in (plain, defended))
    sign = _SIGNS.get(defence.name)
    holds = None if sign is None else (change.low > 0 if sign > 0 else change.high < 0)
    return Row(
        f"digits {twin}: change of LiRA's AUC by {defence.title}",
        f"{_SOURCES[defence.name]}; {_LIRA}",
        reference=0.0,
        ours=change,
        holds=holds,
        reason=f"AUC {before['auc']} before, {after['auc']} after; TPR at 1 % FPR "
        f"{before['tpr_at_1pct']} and {after['tpr_at_1pct']}; accuracy {plain.accuracy} and "
        f"{defended.accuracy}"
        + (alone and f"; {alone}")
        + ("" if sign is not None else "; nothing is published for a network like this"),
    )


def _without_batch_norm(control: Measured) -> str:
    figures, _ = pooled(control.scores, np.random.default_rng(43))
    return f"without batch norm alone AUC {figures['auc']}, accuracy {control.accuracy}"


def _bound(
    defence: TrainingDefence, twin: str, plain: Measured, defended: Measured, spent: float
) -> Row:
    found = defended.epsilon_bound()
    return Row(
        f"digits {twin}: epsilon that LiRA refutes under {defence.title}",
        "the accountant's epsilon bounds every attack",
        reference=spent,
        ours=found,
        holds=found.value <= spent,
        reason=f"the accountant states {spent:.2f} for {POOL // 2} members; without the defence "
        f"LiRA refutes {plain.epsilon_bound().value:.2f}; {len(defended.results)} targets, "
        "thresholds set on shadows",
    )


def _counts(rates: Sequence[Estimate]) -> tuple[int, int]:
    """Hits and trials of all rates together."""
    return sum(round(rate.value * rate.count) for rate in rates), sum(rate.count for rate in rates)
