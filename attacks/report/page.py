"""The page: findings first, then what was measured section by section, and how to repeat it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

from attacks.audit.document.codec import from_json
from attacks.audit.document.records import SEVERITIES, AuditRecord
from attacks.report.markup import Child, stylesheet, tag
from attacks.report.numbers import duration, moment
from attacks.report.section import ReportSection
from attacks.report.sections import (
    ciphertexts,
    cost,
    curves,
    differences,
    evasion,
    figures,
    findings,
    poisoning,
    remedies,
    repeat,
    threats,
    twins,
)

# Nothing is loaded, nothing runs: the page is text, its own style and inline drawings.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
SECTIONS: Final[tuple[ReportSection, ...]] = (
    findings.SECTION,
    remedies.SECTION,
    twins.SECTION,
    differences.SECTION,
    evasion.SECTION,
    ciphertexts.SECTION,
    poisoning.SECTION,
    curves.SECTION,
    figures.SECTION,
    cost.SECTION,
    threats.SECTION,
    repeat.SECTION,
)
_VERDICTS: Final = {
    "high": "What clients may learn about this model is serious: see the findings marked HIGH.",
    "medium": "Clients learn something about this model that they should not.",
    "low": "No attack of this audit got far; read what it could not say.",
    "ok": "No attack of this audit got far.",
    "none": "This audit attacked no answers of the service: see what it tried instead.",
}


def write_report(document: Mapping[str, Any], path: Path) -> None:
    """Write the page for ``document``, the content of audit.json, to ``path``, whole or not at all.

    Raises AuditError, naming the field, if the document is not that of an audit.
    """
    page = render(document)
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(page)
        Path(scratch).replace(path)
        path.chmod(0o644)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def render(document: Mapping[str, Any]) -> str:
    """The whole page; every string of ``document`` is treated as text.

    Raises AuditError, naming the field, if the document is not that of an audit.
    """
    audit = from_json(AuditRecord, document)
    drawn = [(section, section.draw(audit)) for section in SECTIONS]
    shown = [(section, content) for section, content in drawn if content is not None]
    links = [tag("li", {}, tag("a", {"href": f"#{s.key}"}, s.title)) for s, _ in shown]
    parts = [tag("section", {"id": s.key}, tag("h2", {}, s.title), each) for s, each in shown]
    body = [
        tag("a", {"class": "skip", "href": "#findings"}, "Skip to the findings"),
        tag(
            "header",
            {},
            *_heading(audit),
            tag("nav", {"aria-label": "Sections"}, tag("ul", {}, *links)),
        ),
        tag("main", {}, *parts),
        tag("footer", {}, f"he-infer {audit.project_version}, {moment(audit.created)}"),
    ]
    sheet = resources.files("attacks.report").joinpath("assets/report.css").read_text("utf-8")
    head = [
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("title", {}, f"Leakage audit of {audit.model.name}"),
        stylesheet(sheet),
    ]
    page = tag("html", {"lang": "en"}, tag("head", {}, *head), tag("body", {}, *body))
    return f"<!doctype html>\n{page.text}\n"


def _heading(audit: AuditRecord) -> list[Child]:
    severities = [finding.severity for finding in audit.findings]
    worst: str = min(severities, key=SEVERITIES.index, default="ok")
    if worst in ("low", "ok") and not audit.attacks:
        worst = "none"
    about = f"Audit of {moment(audit.created)} on {audit.data.get('name', 'its data')}"
    return [
        tag("h1", {}, f"How much does {audit.model.name} leak although it is encrypted?"),
        tag("p", {"class": "soft"}, f"{about}, {duration(audit.duration_s)}."),
        tag("p", {"class": "verdict"}, _VERDICTS[worst]),
    ]
