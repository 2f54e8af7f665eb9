"""Who attacks, and the games that the figures are played by."""

from __future__ import annotations

from typing import Final

from attacks.audit.document.records import AuditRecord
from attacks.report.markup import Markup, join, tag
from attacks.report.section import ReportSection
from attacks.report.tables import described


def _draw(audit: AuditRecord) -> Markup:
    threats = described((threat.name, threat.text) for threat in audit.threat_models)
    return join([threats, tag("h3", {}, "The game"), tag("p", {}, audit.game)])


SECTION: Final = ReportSection(key="threats", title="Threat model and game", draw=_draw)
