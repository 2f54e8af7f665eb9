"""How to repeat the audit: the command, and everything that decides the figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from attacks.audit.document.codec import to_json
from attacks.audit.document.records import AuditRecord
from attacks.report.markup import Child, Markup, join, tag
from attacks.report.numbers import number
from attacks.report.section import ReportSection
from attacks.report.tables import described


def _draw(audit: AuditRecord) -> Markup:
    groups: Mapping[str, Mapping[str, Any]] = {
        "Model": to_json(audit.model),
        "Data": audit.data,
        "Plan": audit.plan,
        "Configuration": audit.config,
        "Seeds": audit.seeds,
        "Versions": audit.versions,
    }
    parts: list[Child] = [
        tag("pre", {}, audit.command),
        tag("p", {}, f"Machine: {audit.machine}."),
    ]
    for title, group in groups.items():
        if group:
            pairs = ((key.replace("_", " "), _plain(value)) for key, value in _flat(group))
            parts += [tag("h3", {}, title), described(pairs)]
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
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case float():
            return number(value)
        case list() | tuple():
            return ", ".join(map(_plain, value))
    return str(value)


SECTION: Final = ReportSection(key="repeat", title="How to repeat it", draw=_draw)
