"""A row of published figures: what was published, what we measured, and whether it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attacks.core.intervals import Estimate

Row = dict[str, Any]
FIELDS: Final = ("name", "source", "reference", "ours", "interval", "holds", "reason")


def row(
    name: str,
    source: str,
    *,
    reference: Any,
    ours: Any,
    interval: list[float] | None,
    holds: bool | None,
    reason: str,
) -> Row:
    """``holds`` None: nothing was judged, and ``reason`` says why."""
    values = (name, source, reference, ours, interval, holds, reason)
    return dict(zip(FIELDS, values, strict=True))


def estimated(
    name: str, source: str, *, reference: Any, ours: Estimate, holds: bool | None, reason: str
) -> Row:
    """A row whose figure is one estimate with its interval."""
    return row(
        name,
        source,
        reference=reference,
        ours=ours.value,
        interval=[ours.low, ours.high],
        holds=holds,
        reason=reason,
    )


def unjudged(name: str, source: str, *, reference: Any = None, reason: str) -> Row:
    """A row without a figure: its data or a package are not at hand."""
    return row(
        name, source, reference=reference, ours=None, interval=None, holds=None, reason=reason
    )


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
