"""The records of ``benchmarks.defences`` as Markdown tables, which the documentation quotes."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.rows import Json
from benchmarks.tables import markdown


def lines(found: Json) -> list[str]:
    """What each adversary needs, what each defence costs, and what labels alone tell."""
    return [*stolen(found), "", *paid(found), "", *alone(found)]


def stolen(found: Json) -> list[str]:
    """One line a defence: the best adversary inside and outside the interval, and the floor."""
    base = _best(found["defences"][0]["cells"])
    rows = []
    for entry in found["defences"]:
        cells, floor = entry["cells"], entry["constants_floor"]
        inside = [cell for cell in cells if cell["reach"] == 1]
        unaware = [cell for cell in inside if not cell["knows"]]
        overall = _best(cells)
        rows.append(
            (
                entry["defence"],
                _records(unaware) if unaware else "–",
                _records(inside),
                _records([cell for cell in cells if cell["reach"] > 1]),
                "–" if overall is None or base is None else f"{overall / base:.1f}×",
                "–" if floor is None else f"{floor:,}",
                _share(entry["accuracy"]),
                _share(entry["lost"]),
            )
        )
    figures = (
        *("unaware, in range", "best, in range", "best, out of range", "times more"),
        *("floor of constants", "accuracy", "points lost"),
    )
    return markdown(("defence", *figures), rows, right=figures)


def paid(found: Json) -> list[str]:
    """Levels, bits, milliseconds and reach of each plan, alone and at 256 records a query."""
    rows = [
        (
            name,
            batch,
            price["levels"],
            f"{price['first_prime_bits']} bits",
            price["defence_bits"],
            f"{price['evaluate_ms']:.1f} ms",
            price["reach"],
        )
        for batch, plans in found["prices"].items()
        for name, price in plans.items()
    ]
    figures = ("records a query", "levels", "first prime", "bits taken", "evaluation", "reach")
    return markdown(("defence", *figures), rows, right=figures)


def alone(found: Json) -> list[str]:
    """What labels alone give."""
    return [
        f"{row['records']:,} labels: {_share(row['test'])} of test records, "
        f"{_share(row['uniform'])} of uniform inputs agree"
        for row in found["labels_alone"]
    ]


def live(found: Json) -> list[str]:
    """One line a defence: what its cheapest adversary gets from the service."""
    rows = [
        (
            row["defence"],
            f"{row['records']:,}",
            f"{row['reach']} ×",
            _share(row["test"]),
            _share(row["uniform"]),
            f"{row['megabytes']} MB",
        )
        for row in found["live"]
    ]
    figures = ("records", "how far out", "test records", "uniform inputs", "sent and received")
    return markdown(("defence", *figures), rows, right=figures)


def _best(cells: Sequence[Json]) -> int | None:
    return min((cell["needed"] for cell in cells if cell["needed"] is not None), default=None)


def _records(cells: Sequence[Json]) -> str:
    best = _best(cells)
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


def _share(estimate: Json) -> str:
    value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
    return f"{value:.1f} % ({low:.1f} … {high:.1f})"
