"""The report's section on evasion: whether the evaluation is sound, on every twin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attacks.report.markup import Markup, join, tag
from attacks.report.numbers import number, twin_name
from attacks.report.tables import table


def evasion_section(audit: Mapping[str, Any]) -> Markup | None:
    """None for an audit without evasion."""
    evasion = audit.get("evasion")
    if not evasion:
        return None
    twins = audit["twins"]
    intro = (
        f"Attacks by evasion moved values by up to {number(float(evasion['epsilon']))}; their "
        "success stands in the table of all attacks. An attack that fails proves nothing by "
        "itself, so these checks ran with them: where one fails, the figures are too kind to the "
        "model. Counts are of targets."
    )
    head = tag(
        "tr",
        {},
        tag("th", {"scope": "col"}, "check"),
        *(tag("th", {"scope": "col"}, twin_name(twin)) for twin in twins),
    )
    rows = [
        tag(
            "tr",
            {},
            tag("th", {"scope": "row"}, check["title"]),
            *(_cell(check, twin) for twin in twins),
        )
        for check in evasion["checks"]
    ]
    notes = [
        tag("li", {}, f"{check['title']}, {note}")
        for check in evasion["checks"]
        for note in check["notes"]
    ]
    return join(
        [
            tag("p", {"class": "soft"}, intro),
            table("Sanity checks of evasion, on every twin", head, rows),
            *([tag("ul", {}, *notes)] if notes else []),
        ]
    )


def _cell(check: Mapping[str, Any], twin: str) -> Markup:
    tried, held = check["tried"].get(twin, 0), check["held"].get(twin, 0)
    if not tried:
        return tag("td", {}, "–")
    verdict = "holds" if held == tried else "fails"
    return tag(
        "td", {"class": None if held == tried else "differs"}, f"{verdict}, {held} of {tried}"
    )
