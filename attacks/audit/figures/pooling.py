"""From the cells of several targets to one row of the report: pooled, and paired between twins."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from attacks.audit.bench.cell import DONE, FAILED, REFUSED, Cell, spent_to_json
from attacks.audit.figures.crosswise import draw_crosswise
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
    by_twin: Mapping[str, Mapping[int, Cell]], pairs: Sequence[Pair], rng: np.random.Generator
) -> tuple[dict[str, Cell], dict[Pair, dict[str, Estimate]]]:
    """Pooled cells by twin, and differences by (before, after) and metric.

    ``by_twin``: the cells of one attack by target. Differences are taken over the targets on
    which all twins are done that are done anywhere.
    """
    pooled = {twin: pool(list(cells.values())) for twin, cells in by_twin.items()}
    working = [twin for twin, cell in pooled.items() if cell.status == DONE]
    shared = [
        target
        for target in next(iter(by_twin.values()), {})
        if all(by_twin[twin][target].status == DONE for twin in working)
    ]
    compared = [pair for pair in pairs if set(pair) <= set(working)]
    if not working or not shared:
        return pooled, {}
    scored = {twin: _scored([by_twin[twin][t] for t in shared]) for twin in working}
    if not all(scored.values()):
        found = {
            (first, second): _mean_differences(
                [by_twin[first][t] for t in shared], [by_twin[second][t] for t in shared]
            )
            for first, second in compared
        }
    elif len(shared) == 1:
        found = {
            (first, second): {"auc": paired_auc(scored[first][0], scored[second][0], rng)}
            for first, second in compared
        }
    else:
        draws = draw_crosswise(scored, rng)
        for twin in working:
            kept = tuple(n for n in pooled[twin].notes if not n.startswith("no figure at"))
            pooled[twin] = dataclasses.replace(
                pooled[twin],
                # Rates that one target alone cannot support are there once all are pooled.
                metrics={**pooled[twin].metrics, **draws.metrics(twin)},
                notes=(*kept, *draws.notes),
            )
        found = {
            (first, second): {
                metric: draws.difference(first, second, metric)
                for metric in COMPARED
                if metric in draws.values[first]
            }
            for first, second in compared
        }
    return pooled, found


def pool(cells: Sequence[Cell]) -> Cell:
    """One cell for all targets; ``spent`` and ``seconds`` are means per target.

    Done if the attack worked on any target, with a note about the others.
    """
    done = [cell for cell in cells if cell.status == DONE]
    if not done:
        failed = [cell for cell in cells if cell.status == FAILED]
        worst = (failed or list(cells))[0]
        return Cell(status=FAILED if failed else REFUSED, reason=worst.reason)
    notes = tuple(dict.fromkeys(note for cell in done for note in cell.notes))
    others = [cell for cell in cells if cell.status != DONE]
    if others:
        notes += (f"{len(others)} of {len(cells)} targets are missing: {others[0].reason}",)
    return Cell(
        status=DONE,
        primary=done[0].primary,
        metrics=_means([cell.metrics for cell in done]),
        baseline=_means([cell.baseline for cell in done]),
        curves=_curves(done),
        spent=_mean_spent([cell.spent for cell in done]),
        seconds=sum(cell.seconds for cell in done) / len(done),
        notes=notes,
    )


def pooled_to_json(cell: Cell, targets: int) -> dict[str, Any]:
    """A pooled cell as the report's document has it; ``targets``: how many it rests on."""
    return {
        "status": cell.status,
        "reason": cell.reason,
        "metrics": {name: estimate.to_json() for name, estimate in cell.metrics.items()},
        "baseline": {name: estimate.to_json() for name, estimate in cell.baseline.items()},
        "curves": {name: curve.to_json() for name, curve in cell.curves.items()},
        "spent": spent_to_json(cell.spent),
        "seconds": cell.seconds,
        "targets": targets,
        "notes": list(cell.notes),
    }


def is_significant(difference: Estimate) -> bool:
    """The interval leaves 0 out."""
    return difference.low > 0 or difference.high < 0


def _mean_differences(before: Sequence[Cell], after: Sequence[Cell]) -> dict[str, Estimate]:
    return {
        metric: paired_difference(
            [cell.metrics[metric] for cell in before], [cell.metrics[metric] for cell in after]
        )
        for metric in COMPARED
        if all(metric in cell.metrics for cell in (*before, *after))
    }


def _means(found: Sequence[Mapping[str, Estimate]]) -> dict[str, Estimate]:
    """The mean of every figure that all targets have."""
    return {
        name: over_targets([each[name] for each in found])
        for name in found[0]
        if all(name in each for each in found)
    }


def _scored(cells: Sequence[Cell]) -> list[MembershipScores]:
    """The scores of every cell, or nothing if one of them has none."""
    found = [cell.scored for cell in cells if cell.scored is not None]
    return found if len(found) == len(cells) else []


def _curves(cells: Sequence[Cell]) -> dict[str, Curve]:
    scored = _scored(cells)
    if scored:
        scores = np.concatenate([each.scores for each in scored])
        members = np.concatenate([each.is_member for each in scored])
        return {"roc": roc_curve(scores, members)}
    found = {}
    for name in cells[0].curves:
        curve = mean_curve([cell.curves[name] for cell in cells if name in cell.curves])
        # Adaptive attacks ask differently many records of each target.
        found[name] = cells[0].curves[name] if curve is None else curve
    return found


def _mean_spent(spent: Sequence[Spent]) -> Spent:
    count = len(spent)
    return Spent(
        records=round(sum(each.records for each in spent) / count),
        requests=round(sum(each.requests for each in spent) / count),
        bytes_sent=round(sum(each.bytes_sent for each in spent) / count),
        bytes_received=round(sum(each.bytes_received for each in spent) / count),
        seconds=sum(each.seconds for each in spent) / count,
    )
