"""Tables that scroll inside themselves on a narrow screen, and what stands in them.

A row is a heading and its cells. A cell that is text is written as it is; ``figure`` makes one of
a value with smaller lines below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attacks.report.markup import Child, Markup, tag


def table(caption: str, columns: Sequence[str], rows: Sequence[Markup]) -> Markup:
    head = tag("tr", {}, *(tag("th", {"scope": "col"}, column) for column in columns))
    drawn = tag(
        "table",
        {},
        tag("caption", {}, caption),
        tag("thead", {}, head),
        tag("tbody", {}, *rows),
    )
    return tag(
        "div", {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": caption}, drawn
    )


def row(title: str, *cells: Child, sources: Sequence[str] = ()) -> Markup:
    """``sources``: lines in small type below the title."""
    small = (tag("span", {"class": "source"}, source) for source in sources)
    heading = tag("th", {"scope": "row"}, title, *small)
    return tag("tr", {}, heading, *(c if isinstance(c, Markup) else cell(c) for c in cells))


def cell(text: str, kind: str | None = None, *, columns: int | None = None) -> Markup:
    """``kind``: "differs", "refused" or "soft"; ``columns``: how many it spans."""
    return tag("td", {"class": kind, "colspan": columns}, text)


def figure(value: str, interval: str = "", cost: str = "", *, differs: bool = False) -> Markup:
    """A cell with a figure, its interval and what it cost; a dot if it ``differs``."""
    lines = (("value", value), ("interval", interval), ("cost", cost))
    return tag(
        "td",
        {"class": "differs" if differs else None},
        *(tag("span", {"class": name}, text) for name, text in lines if text),
    )


def note(text: str) -> Markup:
    """A paragraph in soft type."""
    return tag("p", {"class": "soft"}, text)


def bullets(items: Sequence[str]) -> Markup:
    return tag("ul", {}, *(tag("li", {}, item) for item in items))


def described(pairs: Iterable[tuple[str, str]]) -> Markup:
    """A list of terms, each with its description."""
    items: list[Child] = []
    for term, text in pairs:
        items += [tag("dt", {}, term), tag("dd", {}, text)]
    return tag("dl", {}, *items)


def folded(summary: str, content: Markup) -> Markup:
    """Closed until asked for; printed in full."""
    return tag("details", {}, tag("summary", {}, summary), content)
