"""The report's section on poisoned training sets: the same poison on every twin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attacks.report.markup import Child, Markup, join, tag
from attacks.report.numbers import interval_text, twin_name, value_text
from attacks.report.tables import table

_INTRO = (
    "A network with the first target's members, recipe and seed was trained again on poisoned "
    "records, and each of its forms was asked the same questions as the target itself. Brackets "
    "are 95 % intervals; the figure without poison stands below."
)
_ROWS = (("poison_success", "success"), ("accuracy", "accuracy, test records"))


def poisoning_section(audit: Mapping[str, Any]) -> Markup | None:
    """None for an audit without these attacks."""
    checks = audit.get("poisoning")
    if not checks:
        return None
    twins = audit["twins"]
    head = tag(
        "tr",
        {},
        tag("th", {"scope": "col"}, "poison"),
        tag("th", {"scope": "col"}, "figure"),
        *(tag("th", {"scope": "col"}, twin_name(twin)) for twin in twins),
    )
    rows = [
        tag(
            "tr",
            {},
            _label(check),
            tag("td", {}, words),
            *(_cell(check["figures"].get(twin), name) for twin in twins),
        )
        for check in checks
        for name, words in _ROWS
    ]
    notes = [
        tag("li", {}, f"{check['title']}: {note}") for check in checks for note in check["notes"]
    ]
    return join(
        [
            tag("p", {"class": "soft"}, _INTRO),
            table("Poisoned training sets, on every twin", head, rows),
            tag("ul", {}, *notes),
        ]
    )


def _label(check: Mapping[str, Any]) -> Markup:
    return tag(
        "th",
        {"scope": "row"},
        check["title"],
        tag("span", {"class": "source"}, f"{100 * check['share']:.3g} % of the records"),
        tag("span", {"class": "source"}, f"{check['threat_model']}; {check['reference']}"),
    )


def _cell(figures: Mapping[str, Any] | None, name: str) -> Markup:
    if figures is None:
        return tag("td", {}, "–")
    after, before = figures[name], figures[f"clean_{name}"]
    children: list[Child] = [
        tag("span", {"class": "value"}, value_text(float(after["value"]), "accuracy")),
        tag("span", {"class": "interval"}, interval_text(after, "accuracy")),
        tag(
            "span",
            {"class": "cost"},
            f"without poison {value_text(float(before['value']), 'accuracy')}",
        ),
    ]
    return tag("td", {}, *children)
