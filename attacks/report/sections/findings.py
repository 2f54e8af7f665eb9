"""What the figures mean, the worst first."""

from __future__ import annotations

from typing import Final

from attacks.audit.document.records import SEVERITIES, AuditRecord, Finding
from attacks.report.markup import Markup, join, tag
from attacks.report.section import ReportSection

_WORDS: Final = {"high": "HIGH", "medium": "MEDIUM", "low": "NOTE", "ok": "OK"}


def _draw(audit: AuditRecord) -> Markup:
    if not audit.findings:
        return tag("p", {}, "The audit came to no finding.")
    ordered = sorted(audit.findings, key=lambda finding: SEVERITIES.index(finding.severity))
    return join(map(_article, ordered))


def _article(finding: Finding) -> Markup:
    severity = tag("span", {"class": "severity"}, _WORDS[finding.severity])
    parts = [tag("h3", {}, severity, finding.title), tag("p", {}, finding.text)]
    if finding.advice:
        parts.append(tag("p", {}, tag("strong", {}, "What to do: "), finding.advice))
    return tag("article", {"class": f"finding {finding.severity}"}, *parts)


SECTION: Final = ReportSection(key="findings", title="Findings", draw=_draw)
