"""Line charts as inline SVG: bands, logarithmic axes, and dashes, so that no colour is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from attacks.core.result import Curve
from attacks.report.markup import Attributes, Child, Markup, tag

_WIDTH: Final = 560
_HEIGHT: Final = 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 28, 14, 48
_FLOOR: Final = _HEIGHT - _BOTTOM
# Classes s0 … s5 colour a series; the dash tells it apart in grey.
_DASHES: Final = ("", "8 4", "2 3", "10 3 2 3", "5 2", "1 4")
MOST_SERIES: Final = len(_DASHES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A curve with the band around it, and where in the palette it stands."""

    name: str
    curve: Curve
    slot: int

    @property
    def style(self) -> str:
        return f"s{self.slot % MOST_SERIES}"

    @property
    def dashes(self) -> str | None:
        return _DASHES[self.slot % MOST_SERIES] or None


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


def line_chart(
    *,
    title: str,
    description: str,
    x: Axis,
    y: Axis,
    series: Sequence[Series],
    diagonal: bool = False,
    unsupported_below: float | None = None,
    levels: Mapping[str, float] = MappingProxyType({}),
) -> Markup:
    """A figure with its legend. ``diagonal``: draw y = x. ``unsupported_below``: shade x below.

    ``levels``: horizontal reference lines by name, such as the baseline without queries.
    """
    parts: list[Child] = [tag("title", {}, title), tag("desc", {}, description), *_grid(x, y)]
    if unsupported_below is not None and unsupported_below > x.low:
        size: Attributes = {
            "width": _number(_px(x, unsupported_below) - _LEFT),
            "height": _FLOOR - _TOP,
        }
        parts.append(tag("rect", {"class": "unsupported", "x": _LEFT, "y": _TOP, **size}))
    if diagonal:
        low = max(x.low, y.low)
        values = [low * (x.high / low) ** (i / 40) for i in range(41)]
        chance = _points(x, y, values, values)
        parts.append(tag("polyline", {"class": "reference", "points": chance}))
    parts += [_level_line("reference", y, value) for value in levels.values()]
    for each in series:
        parts += _drawn(each, x, y)
    view: Attributes = {"viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "role": "img", "class": "chart"}
    keys = [_key(each.name, f"curve {each.style}", each.dashes) for each in series]
    references = [*(["chance"] if diagonal else []), *levels]
    keys += [_key(name, "reference") for name in references]
    return tag(
        "figure",
        {},
        tag("figcaption", {}, title),
        tag("svg", view, *parts),
        tag("ul", {"class": "legend"}, *keys),
    )


def _grid(x: Axis, y: Axis) -> list[Child]:
    parts: list[Child] = []
    for value in x.ticks():
        at = _number(_px(x, value))
        parts.append(tag("line", {"class": "grid", "x1": at, "x2": at, "y1": _TOP, "y2": _FLOOR}))
        parts.append(_text(x.text(value), {"x": at, "y": _FLOOR + 17}))
    for value in y.ticks():
        place: Attributes = {"x": _LEFT - 7, "y": _number(_py(y, value)), "dy": "0.35em"}
        parts.append(_level_line("grid", y, value))
        parts.append(_text(y.text(value), place, anchor="end"))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    turned = f"translate(14 {(_TOP + _FLOOR) / 2}) rotate(-90)"
    parts.append(_text(x.label, {"x": middle, "y": _HEIGHT - 8, "class": "label"}))
    parts.append(_text(y.label, {"transform": turned, "class": "label"}))
    return parts


def _text(text: str, place: Attributes, *, anchor: str = "middle") -> Markup:
    return tag("text", {**place, "text-anchor": anchor}, text)


def _level_line(style: str, y: Axis, value: float) -> Markup:
    """A horizontal line over the whole width."""
    height = _number(_py(y, value))
    ends: Attributes = {"x1": _LEFT, "x2": _WIDTH - _RIGHT, "y1": height, "y2": height}
    return tag("line", {"class": style, **ends})


def _drawn(series: Series, x: Axis, y: Axis) -> list[Child]:
    curve, style = series.curve, series.style
    there = [i for i, value in enumerate(curve.x) if x.low <= value <= x.high]
    if not there:
        return []
    at, upper, middle, lower = (
        [column[i] for i in there] for column in (curve.x, curve.high, curve.y, curve.low)
    )
    parts: list[Child] = []
    if len(there) > 1:
        band = _points(x, y, [*at, *reversed(at)], [*upper, *reversed(lower)])
        parts.append(tag("polygon", {"class": f"band {style}", "points": band}))
    dashed: Attributes = {"class": f"curve {style}", "stroke-dasharray": series.dashes}
    parts.append(tag("polyline", {**dashed, "points": _points(x, y, at, middle)}))
    if len(there) <= 12:
        for a, b in zip(at, middle, strict=True):
            center: Attributes = {"cx": _number(_px(x, a)), "cy": _number(_py(y, b))}
            parts.append(tag("circle", {"class": f"point {style}", **center, "r": 3}))
    return parts


def _key(name: str, style: str, dashes: str | None = None) -> Markup:
    """A line of the legend."""
    line: Attributes = {"class": style, "stroke-dasharray": dashes, "points": "1,5 33,5"}
    view: Attributes = {"viewBox": "0 0 34 10", "class": "key", "aria-hidden": "true"}
    return tag("li", {}, tag("svg", view, tag("polyline", line)), name)


def _points(x: Axis, y: Axis, across: Sequence[float], up: Sequence[float]) -> str:
    return " ".join(
        f"{_number(_px(x, a))},{_number(_py(y, b))}" for a, b in zip(across, up, strict=True)
    )


def _px(axis: Axis, value: float) -> float:
    return _LEFT + axis.place(value) * (_WIDTH - _LEFT - _RIGHT)


def _py(axis: Axis, value: float) -> float:
    return _FLOOR - axis.place(value) * (_FLOOR - _TOP)


def _number(value: float) -> str:
    return f"{value:.1f}"


def _step(rough: float) -> float:
    """The nearest of 1, 2, 5 times a power of ten above ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * m for m in (1.0, 2.0, 5.0, 10.0) if power * m >= rough * (1 - 1e-9))
