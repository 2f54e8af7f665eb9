"""The back of the report: what attacks cost, the threat model, and how to repeat the audit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attacks.report.markup import Child, Markup, join, tag
from attacks.report.numbers import duration, number, size, twin_name
from attacks.report.tables import head_row, table


def cost_section(audit: Mapping[str, Any]) -> Markup | None:
    rows = []
    for attack in audit["attacks"]:
        for twin, cell in attack["cells"].items():
            if cell["status"] != "done":
                continue
            spent = cell["spent"]
            texts = (
                f"{int(spent['records']):,}",
                f"{int(spent['requests']):,}",
                size(float(spent["bytes_sent"])),
                size(float(spent["bytes_received"])),
                duration(float(spent["seconds"])),
                duration(float(cell["seconds"])),
            )
            rows.append(
                tag(
                    "tr",
                    {},
                    tag("th", {"scope": "row"}, attack["title"]),
                    tag("td", {}, twin_name(twin)),
                    *(tag("td", {}, text) for text in texts),
                )
            )
    if not rows:
        return None
    head = head_row(
        "attack", "twin", "records", "requests", "sent", "received", "waiting", "in all"
    )
    return join(
        [
            tag(
                "p",
                {"class": "soft"},
                "Per target. Records are what counts: one request carries many. Bytes and waiting "
                "time are what this audit paid; an answer that another attack had already paid "
                "for is reused.",
            ),
            table("What each attack asked", head, rows),
        ]
    )


def threat_section(audit: Mapping[str, Any]) -> Markup:
    items: list[Child] = []
    for threat in audit["threat_models"]:
        items += [tag("dt", {}, threat["name"]), tag("dd", {}, threat["text"])]
    return join([tag("dl", {}, *items), tag("h3", {}, "The game"), tag("p", {}, audit["game"])])


def repeat_section(audit: Mapping[str, Any]) -> Markup:
    groups = (
        ("Model", audit["model"]),
        ("Data", audit["data"]),
        ("Plan", audit["plan"]),
        ("Configuration", audit["config"]),
        ("Seeds", audit["seeds"]),
        ("Versions", audit["versions"]),
    )
    parts: list[Child] = [
        tag("pre", {}, audit["command"]),
        tag("p", {}, f"Machine: {audit['machine']}."),
    ]
    for title, group in groups:
        pairs: list[Child] = []
        for key, value in _flat(group):
            pairs += [tag("dt", {}, key.replace("_", " ")), tag("dd", {}, _plain(value))]
        if pairs:
            parts += [tag("h3", {}, title), tag("dl", {}, *pairs)]
    return join(parts)


def _flat(group: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every entry, nested ones by their path: nothing that repeats the audit may be left out."""
    for key, value in group.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}, ")
        else:
            yield path, value


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(each) for each in value)
    return str(value)
