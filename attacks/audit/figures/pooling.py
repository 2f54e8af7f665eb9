"""From the trials of several targets to one attack's figures: pooled, and paired between twins."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from attacks.audit.bench.trial import Trial
from attacks.audit.document.records import DONE, FAILED, REFUSED, PooledTrial
from attacks.audit.figures.resampling import resample_twins
from attacks.audit.figures.statistics import mean_curve, over_targets, paired_auc, paired_difference
from attacks.core.intervals import Estimate
from attacks.core.oracle import Spent
from attacks.core.result import Curve
from attacks.core.roc import roc_curve
from attacks.membership.outcome import MembershipScores

# What is compared between twins, where both have it; the primary metric first.
COMPARED: Final = ("fidelity_test", "fidelity_uniform", "auc", "tpr_at_1pct", "success")

Pair = tuple[str, str]


def pool_twins(
    by_twin: Mapping[str, Mapping[int, Trial]], pairs: Sequence[Pair], rng: np.random.Generator
) -> tuple[dict[str, PooledTrial], dict[Pair, dict[str, Estimate]]]:
    """Pooled trials by twin, and differences by (before, after) and metric.

    ``by_twin``: the trials of one attack by target. Differences are taken over the targets on
    which the attack worked on every twin that it worked on anywhere.
    """
    pooled = {twin: pool(list(trials.values())) for twin, trials in by_twin.items()}
    working = [twin for twin, trial in pooled.items() if trial.status == DONE]
    shared = [
        target
        for target in next(iter(by_twin.values()), {})
        if all(by_twin[twin][target].status == DONE for twin in working)
    ]
    if not working or not shared:
        return pooled, {}
    trials = {twin: [by_twin[twin][target] for target in shared] for twin in working}
    compared = [pair for pair in pairs if set(pair) <= set(working)]
    scored = {twin: _scored(each) for twin, each in trials.items()}
    if not all(scored.values()):
        return pooled, {
            (before, after): _mean_differences(trials[before], trials[after])
            for before, after in compared
        }
    if len(shared) == 1:
        return pooled, {
            (before, after): {"auc": paired_auc(scored[before][0], scored[after][0], rng)}
            for before, after in compared
        }
    resamples = resample_twins(scored, rng)
    for twin in working:
        kept = tuple(n for n in pooled[twin].notes if not n.startswith("no figure at"))
        pooled[twin] = dataclasses.replace(
            pooled[twin],
            # Rates that one target alone cannot support are there once all are pooled.
            metrics={**pooled[twin].metrics, **resamples.metrics(twin)},
            notes=(*kept, *resamples.notes),
        )
    return pooled, {
        (before, after): {
            metric: resamples.difference(before, after, metric)
            for metric in COMPARED
            if metric in resamples.values[before]
        }
        for before, after in compared
    }


def pool(trials: Sequence[Trial]) -> PooledTrial:
    """The trials of one attack on one twin as one, with a note about targets that are missing."""
    done = [trial for trial in trials if trial.status == DONE]
    others = [trial for trial in trials if trial.status != DONE]
    if not done:
        failed = [trial for trial in others if trial.status == FAILED]
        worst = (failed or others)[0]
        return PooledTrial(status=FAILED if failed else REFUSED, reason=worst.reason)
    notes = tuple(dict.fromkeys(note for trial in done for note in trial.notes))
    if others:
        notes += (f"{len(others)} of {len(trials)} targets are missing: {others[0].reason}",)
    return PooledTrial(
        status=DONE,
        metrics=_means([trial.metrics for trial in done]),
        baseline=_means([trial.baseline for trial in done]),
        curves=_curves(done),
        spent=_mean_spent([trial.spent for trial in done]),
        seconds=sum(trial.seconds for trial in done) / len(done),
        targets=len(done),
        notes=notes,
    )


def _mean_differences(before: Sequence[Trial], after: Sequence[Trial]) -> dict[str, Estimate]:
    return {
        metric: paired_difference(
            [trial.metrics[metric] for trial in before], [trial.metrics[metric] for trial in after]
        )
        for metric in COMPARED
        if all(metric in trial.metrics for trial in (*before, *after))
    }


def _means(found: Sequence[Mapping[str, Estimate]]) -> dict[str, Estimate]:
    """The mean of every figure that all targets have."""
    return {
        name: over_targets([each[name] for each in found])
        for name in found[0]
        if all(name in each for each in found)
    }


def _scored(trials: Sequence[Trial]) -> list[MembershipScores]:
    """The scores of every trial, or nothing if one of them has none."""
    found = [scored for trial in trials if (scored := trial.scored) is not None]
    return found if len(found) == len(trials) else []


def _curves(trials: Sequence[Trial]) -> dict[str, Curve]:
    scored = _scored(trials)
    if scored:
        scores = np.concatenate([each.scores for each in scored])
        members = np.concatenate([each.is_member for each in scored])
        return {"roc": roc_curve(scores, members)}
    found = {}
    for name, first in trials[0].curves.items():
        curve = mean_curve([trial.curves[name] for trial in trials if name in trial.curves])
        # Adaptive attacks ask differently many records of each target.
        found[name] = first if curve is None else curve
    return found


def _mean_spent(spent: Sequence[Spent]) -> Spent:
    total, count = sum(spent, Spent()), len(spent)
    return Spent(
        records=round(total.records / count),
        requests=round(total.requests / count),
        bytes_sent=round(total.bytes_sent / count),
        bytes_received=round(total.bytes_received / count),
        seconds=total.seconds / count,
    )
