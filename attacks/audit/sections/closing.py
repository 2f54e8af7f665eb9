"""What an audit says whatever it measured: notes about the model, and what encryption is for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from attacks.audit.document.records import AuditRecord, Finding
from attacks.audit.figures.wording import sentence
from attacks.audit.section import Section


def _findings(record: AuditRecord) -> Iterator[Finding]:
    for note in record.notes:
        yield Finding(severity="low", title="About this model", text=sentence(note))
    yield Finding(
        severity="ok",
        title="What encryption protects by design",
        text="Queries and answers travel and are computed on as ciphertexts: the server sees "
        "sizes and times, not records or predictions. This audit attacks the model through "
        "the client's side; the encryption itself is taken to be sound.",
    )


SECTION: Final = Section(findings=_findings)
