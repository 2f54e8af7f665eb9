"""HTML and SVG as values: what is not Markup is text, and text is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

Attributes = Mapping[str, str | int | float | None]
_NONE: Final[Attributes] = {}
_VOID: Final = frozenset({"meta", "line", "rect", "path", "circle", "polyline", "polygon"})


@dataclass(frozen=True, slots=True)
class Markup:
    """Finished markup; only this module's functions make it from text."""

    text: str


Child = Markup | str


def tag(name: str, attributes: Attributes = _NONE, *children: Child) -> Markup:
    """An element; attributes that are None are left out."""
    written = "".join(
        f' {key}="{html.escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID and not children:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{join(children).text}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Siblings, in order."""
    return Markup(
        "".join(
            child.text if isinstance(child, Markup) else html.escape(child) for child in children
        )
    )


def stylesheet(css: str) -> Markup:
    """A style element; the sheet is the package's own file, never part of an audit."""
    return Markup(f"<style>\n{css}</style>")
