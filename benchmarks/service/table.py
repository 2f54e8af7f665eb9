"""The table of claims in a page of the documentation, rewritten from their record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

BEGIN: Final = "<!-- claims -->"
END: Final = "<!-- /claims -->"
_WORDS: Final = {True: "yes", False: "**no**", None: "not tried"}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown, one line for each claim."""
    lines = ["| claim | bar | figure | holds |", "|---|---|---|---|"]
    for row in rows:
        cells = [row["name"], row["bar"], row["figure"], _WORDS[row["holds"]]]
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def rewrite(page: Path, record: Path) -> None:
    """Put the record's table between the marks of a page; raises ValueError without them."""
    text = page.read_text(encoding="utf-8")
    page.write_text(with_table(text, record), encoding="utf-8")


def with_table(text: str, record: Path) -> str:
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    rows = json.loads(record.read_text(encoding="utf-8"))
    return f"{before}{BEGIN}\n{table(rows)}\n{END}{after}"
