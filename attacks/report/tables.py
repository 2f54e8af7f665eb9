"""Tables that scroll inside themselves on a narrow screen."""

from __future__ import annotations

from collections.abc import Sequence

from attacks.report.markup import Markup, tag


def table(caption: str, head: Markup, rows: Sequence[Markup]) -> Markup:
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


def head_row(*columns: str) -> Markup:
    return tag("tr", {}, *(tag("th", {"scope": "col"}, column) for column in columns))


def folded(summary: str, content: Markup) -> Markup:
    """Closed until asked for; printed in full."""
    return tag("details", {}, tag("summary", {}, summary), content)
