"""The report's section on what to do: remedies by leakage removed a point of accuracy lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attacks.report.markup import Child, Markup, join, tag
from attacks.report.tables import head_row, table

_FAMILIES: Final = (
    ("extraction", "copy, fidelity"),
    ("membership", "members, 2 · AUC − 1"),
    ("evasion", "fooled by transfer"),
)
_INTRO: Final = (
    "Each remedy was tried on this very model, on targets with the same members and seeds, against "
    "an attacker who knows it and takes the attack that is best against it. Figures are points "
    "before → after; a dot marks those that fell by more than their paired 95 % interval. The "
    "order is by points of leakage removed a point of accuracy lost; losses below 0.1 points "
    "count as 0.1."
)


def remedy_section(audit: Mapping[str, Any]) -> Markup | None:
    """None for an audit that tried no remedies."""
    remedies = audit.get("remedies")
    if not remedies:
        return None
    head = head_row(
        "remedy", *(title for _, title in _FAMILIES), "accuracy", "worth", "what it takes"
    )
    rows = [_row(remedy) for remedy in remedies]
    return join(
        [tag("p", {"class": "soft"}, _INTRO), table("Remedies, the best first", head, rows)]
    )


def _row(remedy: Mapping[str, Any]) -> Markup:
    if remedy["accuracy"] is None:
        why = remedy["reason"] or "it could not be tried"
        cells = [
            tag("td", {"class": "refused", "colspan": str(len(_FAMILIES) + 2)}, f"not tried: {why}")
        ]
    else:
        cells = [_effect(remedy["effects"].get(family)) for family, _ in _FAMILIES]
        lost = remedy["lost"]
        between = f"[{_points(lost['low'])}, {_points(lost['high'])}]"
        cells.append(
            tag(
                "td",
                {},
                tag("span", {"class": "value"}, _points(remedy["accuracy"]["value"])),
                tag(
                    "span",
                    {"class": "interval"},
                    f"lost {_points(lost['value'])} {between}",
                ),
            )
        )
        cells.append(tag("td", {}, f"{remedy['worth']:.0f}" if remedy["worth"] else "–"))
    return tag(
        "tr",
        {},
        tag("th", {"scope": "row"}, remedy["title"]),
        *cells,
        tag("td", {"class": "soft"}, remedy["cost"]),
    )


def _effect(effect: Mapping[str, Any] | None) -> Markup:
    if effect is None:
        return tag("td", {}, "–")
    removed = effect["removed"]
    children: list[Child] = [
        tag(
            "span",
            {"class": "value"},
            f"{_points(effect['before']['value'])} → {_points(effect['after']['value'])}",
        ),
        tag(
            "span",
            {"class": "interval"},
            f"less by {_points(removed['value'])} [{_points(removed['low'])}, "
            f"{_points(removed['high'])}]",
        ),
        tag("span", {"class": "cost"}, effect["against"]),
    ]
    return tag("td", {"class": "differs" if effect["measurable"] else None}, *children)


def _points(share: float) -> str:
    return f"{100 * share:.1f}"
