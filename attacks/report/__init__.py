"""One self-contained page from an audit's JSON: ``write_report(audit, path)``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attacks.report.page import render

__all__ = ["render", "write_report"]


def write_report(audit: Mapping[str, Any], path: Path) -> None:
    """Write the page for ``audit``, the content of audit.json, to ``path``, whole or not at all.

    Raises AuditError, naming the field, if the audit is not what the page can show.
    """
    page = render(audit)
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(page)
        Path(scratch).replace(path)
        path.chmod(0o644)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
