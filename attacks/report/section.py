"""What a section of the report is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from attacks.audit.document.records import AuditRecord
from attacks.report.markup import Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSection:
    """``key``: the anchor of its link; ``draw`` gives None if an audit has nothing to show."""

    key: str
    title: str
    draw: Callable[[AuditRecord], Markup | None]
