"""The record of ``benchmarks.defences`` as Markdown tables, which the documentation quotes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def lines(found: Row) -> list[str]:
    """Three tables: records that each thief needs, what each defence costs, what labels tell."""
    return [*stolen(found), "", *paid(found), "", *alone(found)]


def stolen(found: Row) -> list[str]:
    """One line a defence: the best attacker inside and outside the interval, and the floor."""
    base = _best(found["defences"][0]["cells"], None)
    rows = [
        "| defence | unaware, in range | best, in range | best, out of range | times more | "
        "floor of constants | accuracy | points lost |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for entry in found["defences"]:
        cells = entry["cells"]
        inside = [cell for cell in cells if cell["reach"] == 1]
        unaware = [cell for cell in inside if not cell["knows"]]
        overall = _best(cells, None)
        ratio = "–" if overall is None or base is None else f"{overall / base:.1f}×"
        floor = entry["constants_floor"]
        rows.append(
            f"| {entry['defence']} | {_records(unaware) if unaware else '–'} | "
            f"{_records(inside)} | {_records([c for c in cells if c['reach'] > 1])} | {ratio} | "
            f"{'–' if floor is None else f'{floor:,}'} | {_share(entry['accuracy'])} | "
            f"{_share(entry['lost'])} |"
        )
    return rows


def paid(found: Row) -> list[str]:
    """Levels, bits, milliseconds and reach of each plan, alone and at 256 records a query."""
    rows = [
        "| defence | records a query | levels | first prime | bits taken | evaluation | reach |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for batch, plans in found["prices"].items():
        for name, price in plans.items():
            rows.append(
                f"| {name} | {batch} | {price['levels']} | {price['first_prime_bits']} bits | "
                f"{price['defence_bits']} | {price['evaluate_ms']:.1f} ms | {price['reach']} |"
            )
    return rows


def alone(found: Row) -> list[str]:
    """What labels alone give."""
    return [
        f"{row['records']:,} labels: {_share(row['test'])} of test records, "
        f"{_share(row['uniform'])} of uniform inputs agree"
        for row in found["labels_alone"]
    ]


def _best(cells: Sequence[Row], default: int | None) -> int | None:
    reached = [cell["needed"] for cell in cells if cell["needed"] is not None]
    return min(reached, default=default)


def _records(cells: Sequence[Row]) -> str:
    best = _best(cells, None)
    if best is not None:
        return f"{best:,}"
    # Not reached: the most that was tried, and how far it came.
    last = max(
        (attempt for cell in cells for attempt in cell["tried"]),
        key=lambda attempt: attempt["uniform"]["value"],
        default=None,
    )
    if last is None:
        return "–"
    return f"> {last['records']:,} ({100 * last['uniform']['value']:.1f} %)"


def _share(estimate: Row) -> str:
    value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
    return f"{value:.1f} % ({low:.1f} … {high:.1f})"
