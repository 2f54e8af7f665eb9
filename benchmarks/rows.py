"""A row of the reference table: what was published, what we measured, and whether it holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attacks.core.intervals import Estimate
from attacks.errors import AttackError

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One published figure beside ours.

    ``ours``: an Estimate, which brings its interval, or a figure, named figures, or None if
    nothing could be measured. ``holds`` None: nothing was judged, and ``reason`` says why.
    Raises AttackError for a figure that is not finite and for a row that is neither judged nor
    explained.
    """

    name: str
    source: str
    reference: Any = None
    ours: Any = None
    interval: list[float] | None = None
    holds: bool | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.ours, float) and not math.isfinite(self.ours):
            raise AttackError(f"the row {self.name!r} holds no finite figure")
        if self.holds is None and not self.reason:
            raise AttackError(f"the row {self.name!r} says neither whether it holds nor why not")

    def to_json(self) -> Json:
        ours, interval = self.ours, self.interval
        if isinstance(ours, Estimate):
            interval, ours = [ours.low, ours.high], ours.value
        return {
            "name": self.name,
            "source": self.source,
            "reference": self.reference,
            "ours": ours,
            "interval": interval,
            # A comparison of arrays' numbers gives numpy's own bool, which JSON does not know.
            "holds": None if self.holds is None else bool(self.holds),
            "reason": self.reason,
        }


def merged(before: Sequence[Json], found: Sequence[Json], groups: Sequence[str]) -> list[Json]:
    """``found`` in place of the rows of its groups among ``before``, in the order of ``groups``.

    Both are rows as JSON with their "group". Rows of groups that are gone are left out.
    """
    anew = {each["group"] for each in found}
    kept = [each for each in before if each["group"] in groups and each["group"] not in anew]
    return sorted([*kept, *found], key=lambda each: groups.index(each["group"]))


def lines(rows: Sequence[Json]) -> list[str]:
    """One line for each row as JSON."""
    words = {True: "holds", False: "FAILS", None: "n/a"}
    return [
        f"{words[row['holds']]:<6}{row['name']}: ours {short(row['ours'])}"
        f"{bounds(row['interval'])}, reference {short(row['reference'])} ({row['source']})"
        for row in rows
    ]


def bounds(interval: Sequence[float] | None) -> str:
    """An interval behind its figure; nothing without one."""
    return f" [{short(float(interval[0]))}, {short(float(interval[1]))}]" if interval else ""


def short(value: Any) -> str:
    """A figure, or named figures, for a line or a cell."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        named = {name: each for name, each in value.items() if each is not None}
        return ", ".join(f"{name.replace('_', ' ')} {short(each)}" for name, each in named.items())
    if isinstance(value, list | tuple):
        return " / ".join(map(short, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "–" if value is None else str(value)
