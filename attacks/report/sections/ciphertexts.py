"""Attacks on ciphertexts: where nothing defends, and as served."""

from __future__ import annotations

from typing import Final

from attacks.audit.document.records import AuditRecord
from attacks.ciphertext.suite import Check
from attacks.report.markup import Markup, join
from attacks.report.section import ReportSection
from attacks.report.tables import cell, note, row, table

_INTRO: Final = (
    "Each attack runs on this network twice: compiled without any defence, which shows that the "
    "attack works, and as it is served. Both with real keys and real ciphertexts."
)
_COLUMNS: Final = ("attack", "without defences", "as served", "", "what is left")


def _draw(audit: AuditRecord) -> Markup | None:
    if not audit.ciphertext:
        return None
    rows = [
        row(
            check.title,
            check.control,
            check.defended,
            cell(_verdict(check), None if check.holds else "differs"),
            cell(check.residual, "soft"),
            sources=[f"{check.threat_model}; {check.reference}"],
        )
        for check in audit.ciphertext
    ]
    return join([note(_INTRO), table("Attacks on ciphertexts", _COLUMNS, rows)])


def _verdict(check: Check) -> str:
    if check.control_broken is False:
        return "void"
    if check.control_broken is None:
        return "measured"
    return "holds" if check.holds else "broken"


SECTION: Final = ReportSection(key="ciphertexts", title="Attacks on ciphertexts", draw=_draw)
