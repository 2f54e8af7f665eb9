"""From the cells of several targets to one row of the report: pooled, and paired between twins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from attacks.audit.cell import DONE, FAILED, REFUSED, Cell, spent_to_json
from attacks.audit.statistics import mean_curve, over_targets, paired_auc
from attacks.audit.statistics import paired_difference as paired_means
from attacks.catalogue import EXTRACTION, MEMBERSHIP
from attacks.membership.pooling import paired_difference, pooled
from attacks.membership.run import MembershipScores
from attacks.metrics.intervals import Estimate
from attacks.metrics.roc import roc_curve
from attacks.oracle import Spent
from attacks.result import Curve

# What is compared between twins, where both have it; the primary metric first.
COMPARED: Final[Mapping[str, tuple[str, ...]]] = {
    EXTRACTION: ("fidelity_test", "fidelity_uniform"),
    MEMBERSHIP: ("auc", "tpr_at_1pct"),
}


def pool(cells: Sequence[Cell], rng: np.random.Generator) -> Cell:
    """One cell for all targets; ``spent`` and ``seconds`` are means per target.

    Done if the attack worked on any target, with a note about the others.
    """
    done = [cell for cell in cells if cell.status == DONE]
    if not done:
        failed = [cell for cell in cells if cell.status == FAILED]
        worst = (failed or list(cells))[0]
        return Cell(status=FAILED if failed else REFUSED, reason=worst.reason)
    metrics, notes = _metrics(done, rng)
    others = [cell for cell in cells if cell.status != DONE]
    if others:
        notes += (f"{len(others)} of {len(cells)} targets are missing: {others[0].reason}",)
    names = set.intersection(*(set(cell.baseline) for cell in done))
    return Cell(
        status=DONE,
        primary=done[0].primary,
        metrics=metrics,
        baseline={
            name: over_targets([cell.baseline[name] for cell in done])
            for name in done[0].baseline
            if name in names
        },
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


def compare(
    first: Mapping[int, Cell], second: Mapping[int, Cell], family: str, rng: np.random.Generator
) -> dict[str, Estimate]:
    """second − first by metric, over the targets on which both are done."""
    shared = [
        target
        for target in first
        if first[target].status == DONE and target in second and second[target].status == DONE
    ]
    if not shared:
        return {}
    before, after = [first[t] for t in shared], [second[t] for t in shared]
    a, b = _scored(before), _scored(after)
    found: dict[str, Estimate] = {}
    if len(a) > 1 and len(b) > 1:
        # What all targets together support, which one alone may not.
        supported = pooled(a, rng, resamples=1)[0]
        for metric in COMPARED[family]:
            if metric in supported:
                found[metric] = paired_difference(a, b, metric, rng)
    elif a and b:
        found["auc"] = paired_auc(a[0], b[0], rng)
    else:
        for metric in COMPARED[family]:
            if all(metric in cell.metrics for cell in (*before, *after)):
                found[metric] = paired_means(
                    [cell.metrics[metric] for cell in before],
                    [cell.metrics[metric] for cell in after],
                )
    return found


def is_significant(difference: Estimate) -> bool:
    """The interval leaves 0 out."""
    return difference.low > 0 or difference.high < 0


def _scored(cells: Sequence[Cell]) -> list[MembershipScores]:
    """The scores of every cell, or nothing if one of them has none."""
    found = [cell.scored for cell in cells if cell.scored is not None]
    return found if len(found) == len(cells) else []


def _metrics(
    cells: Sequence[Cell], rng: np.random.Generator
) -> tuple[dict[str, Estimate], tuple[str, ...]]:
    notes = tuple(dict.fromkeys(note for cell in cells for note in cell.notes))
    names = [name for name in cells[0].metrics if all(name in cell.metrics for cell in cells)]
    found = {name: over_targets([cell.metrics[name] for cell in cells]) for name in names}
    scored = _scored(cells)
    if len(scored) < 2:
        return found, notes
    # Rates that one target alone cannot support are there once all are pooled.
    together, refused = pooled(scored, rng)
    kept = tuple(note for note in notes if not note.startswith("no figure at"))
    return {**together, **{n: e for n, e in found.items() if n not in together}}, (*kept, *refused)


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
