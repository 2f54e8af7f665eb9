"""The end of ``he-infer demo``: a small audit of a small model, and where its report is."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from attacks.audit.config import AuditConfig
from attacks.audit.document.records import AuditRecord
from attacks.catalogue import CIPHERTEXT
from attacks.cli.audit import attack_table, audit_and_report
from attacks.progress import Progress
from he_infer.cli.console import table_lines

ATTACKS: Final = ("quadratic-extraction", "yeom", "lira-fixed")


def audit_after_demo(folder: Path, *, progress: Progress | None = None) -> str:
    """Audit digits-mlp into ``folder``/audit and return what to print; raises AttackError."""
    audit = audit_and_report(
        AuditConfig(
            model="digits-mlp",
            data="digits",
            out=folder / "audit",
            attacks=(*ATTACKS, CIPHERTEXT),
            # Small enough for a minute on one core; the intervals are as wide as that allows.
            targets=2,
            shadows=6,
            epochs=30,
            budget=3000,
        ),
        progress=progress,
    )
    return render(audit.record, audit.report_path)


def render(record: AuditRecord, report: Path) -> str:
    """The table of figures, the findings that matter, and the path of the report."""
    blind = [] if record.blind is None else [record.blind.auc]
    return "\n".join(
        [
            "What a client learns although the service is encrypted (digits-mlp, a small audit):",
            "",
            *table_lines(*attack_table(record)),
            *(
                f"blind baseline, which never asks: {auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]"
                for auc in blind
            ),
            "",
            *(
                f"[{finding.severity}] {finding.title}"
                for finding in record.findings
                if finding.severity in ("high", "medium")
            ),
            "",
            f"report: {report}",
        ]
    )
