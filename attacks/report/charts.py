"""Line charts as inline SVG: bands, logarithmic axes, marks that need no colour to tell apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from attacks.report.markup import Child, Markup, tag

_WIDTH: Final = 560
_HEIGHT: Final = 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 28, 14, 48
# Classes s0 … s5 colour a series; the dash tells it apart in grey.
_DASHES: Final = ("", "8 4", "2 3", "10 3 2 3", "5 2", "1 4")
MOST_SERIES: Final = len(_DASHES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points, the band around them, and where in the palette they stand."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """``low`` < ``high``; logarithmic axes are positive. ``percent`` labels shares."""

    label: str
    low: float
    high: float
    log: bool = False
    percent: bool = False

    def place(self, value: float) -> float:
        """Where a value lies between the ends, 0 … 1; values beyond are held at the ends."""
        held = min(max(value, self.low), self.high)
        if self.log:
            return math.log(held / self.low) / math.log(self.high / self.low)
        return (held - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high))
            return [10.0**power for power in range(first, last + 1)]
        step = _step((self.high - self.low) / 5)
        count = int((self.high - self.low) / step + 1e-9)
        start = math.ceil(self.low / step - 1e-9)
        return [(start + i) * step for i in range(count + 1)]

    def text(self, value: float) -> str:
        if self.percent:
            return f"{100 * value:.4g} %"
        return f"{value:,.0f}" if value >= 1 else f"{value:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A horizontal reference line, such as the baseline without queries."""

    name: str
    value: float


def line_chart(
    *,
    title: str,
    description: str,
    x: Axis,
    y: Axis,
    series: Sequence[Series],
    diagonal: bool = False,
    unsupported_below: float | None = None,
    levels: Sequence[Level] = (),
) -> Markup:
    """A figure with its legend. ``diagonal``: draw y = x. ``unsupported_below``: shade x below."""
    parts: list[Child] = [tag("title", {}, title), tag("desc", {}, description)]
    parts += _grid(x, y)
    if unsupported_below is not None and unsupported_below > x.low:
        parts.append(
            tag(
                "rect",
                {
                    "class": "unsupported",
                    "x": _LEFT,
                    "y": _TOP,
                    "width": _number(_px(x, unsupported_below) - _LEFT),
                    "height": _HEIGHT - _TOP - _BOTTOM,
                },
            )
        )
    if diagonal:
        low = max(x.low, y.low)
        points = [(low * (x.high / low) ** (i / 40), 0.0) for i in range(41)]
        chance = " ".join(f"{_number(_px(x, v))},{_number(_py(y, v))}" for v, _ in points)
        parts.append(tag("polyline", {"class": "reference", "points": chance}))
    for level in levels:
        height = _number(_py(y, level.value))
        parts.append(
            tag(
                "line",
                {
                    "class": "reference",
                    "x1": _LEFT,
                    "x2": _WIDTH - _RIGHT,
                    "y1": height,
                    "y2": height,
                },
            )
        )
    for each in series:
        parts += _drawn(each, x, y)
    drawing = tag(
        "svg",
        {"viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "role": "img", "class": "chart"},
        *parts,
    )
    notes = [_key(each) for each in series]
    if diagonal:
        notes.append(_reference_key("chance"))
    notes += [_reference_key(level.name) for level in levels]
    return tag(
        "figure",
        {},
        tag("figcaption", {}, title),
        drawing,
        tag("ul", {"class": "legend"}, *notes),
    )


def _grid(x: Axis, y: Axis) -> list[Child]:
    parts: list[Child] = []
    bottom = _HEIGHT - _BOTTOM
    for value in x.ticks():
        at = _number(_px(x, value))
        parts.append(tag("line", {"class": "grid", "x1": at, "x2": at, "y1": _TOP, "y2": bottom}))
        parts.append(
            tag("text", {"x": at, "y": bottom + 17, "text-anchor": "middle"}, x.text(value))
        )
    for value in y.ticks():
        at = _number(_py(y, value))
        parts.append(
            tag("line", {"class": "grid", "x1": _LEFT, "x2": _WIDTH - _RIGHT, "y1": at, "y2": at})
        )
        parts.append(
            tag(
                "text",
                {"x": _LEFT - 7, "y": at, "dy": "0.35em", "text-anchor": "end"},
                y.text(value),
            )
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        tag(
            "text",
            {"x": middle, "y": _HEIGHT - 8, "text-anchor": "middle", "class": "label"},
            x.label,
        )
    )
    parts.append(
        tag(
            "text",
            {
                "transform": f"translate(14 {(_TOP + bottom) / 2}) rotate(-90)",
                "text-anchor": "middle",
                "class": "label",
            },
            y.label,
        )
    )
    return parts


def _drawn(series: Series, x: Axis, y: Axis) -> list[Child]:
    there = [i for i, value in enumerate(series.x) if x.low <= value <= x.high]
    if not there:
        return []
    upper = [(series.x[i], series.high[i]) for i in there]
    lower = [(series.x[i], series.low[i]) for i in reversed(there)]

    def points(pairs: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{_number(_px(x, a))},{_number(_py(y, b))}" for a, b in pairs)

    name = f"s{series.slot % MOST_SERIES}"
    parts: list[Child] = []
    if len(there) > 1:
        parts.append(tag("polygon", {"class": f"band {name}", "points": points(upper + lower)}))
    parts.append(
        tag(
            "polyline",
            {
                "class": f"curve {name}",
                "stroke-dasharray": _DASHES[series.slot % MOST_SERIES] or None,
                "points": points([(series.x[i], series.y[i]) for i in there]),
            },
        )
    )
    if len(there) <= 12:
        parts += [
            tag(
                "circle",
                {
                    "class": f"point {name}",
                    "cx": _number(_px(x, series.x[i])),
                    "cy": _number(_py(y, series.y[i])),
                    "r": 3,
                },
            )
            for i in there
        ]
    return parts


def _key(series: Series) -> Markup:
    slot = series.slot % MOST_SERIES
    sample = tag(
        "svg",
        {"viewBox": "0 0 34 10", "class": "key", "aria-hidden": "true"},
        tag(
            "polyline",
            {
                "class": f"curve s{slot}",
                "stroke-dasharray": _DASHES[slot] or None,
                "points": "1,5 33,5",
            },
        ),
    )
    return tag("li", {}, sample, series.name)


def _reference_key(name: str) -> Markup:
    sample = tag(
        "svg",
        {"viewBox": "0 0 34 10", "class": "key", "aria-hidden": "true"},
        tag("polyline", {"class": "reference", "points": "1,5 33,5"}),
    )
    return tag("li", {}, sample, name)


def _px(axis: Axis, value: float) -> float:
    return _LEFT + axis.place(value) * (_WIDTH - _LEFT - _RIGHT)


def _py(axis: Axis, value: float) -> float:
    return _HEIGHT - _BOTTOM - axis.place(value) * (_HEIGHT - _TOP - _BOTTOM)


def _number(value: float) -> str:
    return f"{value:.1f}"


def _step(rough: float) -> float:
    """The nearest of 1, 2, 5 times a power of ten above ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * m for m in (1.0, 2.0, 5.0, 10.0) if power * m >= rough * (1 - 1e-9))
