"""Tables of the documentation, rewritten between two marks of a page from their record."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.rows import short

Rows = Sequence[Mapping[str, Any]]
_HOLDS: Final = {True: "yes", False: "**no**", None: "not tried"}
_JUDGED: Final = {True: "holds", False: "**fails**", None: "not judged"}


def claims(rows: Rows) -> str:
    """Markdown, one line for each claim about the service."""
    return _table(
        ("claim", "bar", "figure", "holds"),
        [[row["name"], row["bar"], row["figure"], _HOLDS[row["holds"]]] for row in rows],
    )


def references(rows: Rows) -> str:
    """Markdown, one line for each published figure with ours beside it."""
    return _table(
        ("row", "source", "published", "ours", ""),
        [
            [
                row["name"],
                row["source"],
                short(row["reference"]),
                f"{short(row['ours'])}{_interval(row['interval'])}",
                _JUDGED[row["holds"]],
            ]
            for row in rows
        ],
    )


TABLES: Final[Mapping[str, Callable[[Rows], str]]] = {"claims": claims, "reference": references}


def rewrite(page: Path, record: Path, kind: str) -> None:
    """Put the record's table between the marks of a page; raises ValueError without them."""
    text = page.read_text(encoding="utf-8")
    page.write_text(with_table(text, record, kind), encoding="utf-8")


def with_table(text: str, record: Path, kind: str) -> str:
    """``text`` with the table of ``record``; ``kind`` is one of TABLES, and names the marks."""
    begin, close = f"<!-- {kind} -->", f"<!-- /{kind} -->"
    before, mark, rest = text.partition(begin)
    _, end, after = rest.partition(close)
    if not mark or not end:
        raise ValueError(f"the page needs the lines {begin} and {close}")
    rows = json.loads(record.read_text(encoding="utf-8"))
    return f"{before}{begin}\n{TABLES[kind](rows)}\n{close}{after}"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines)


def _interval(bounds: Sequence[float] | None) -> str:
    return f" [{short(float(bounds[0]))}, {short(float(bounds[1]))}]" if bounds else ""
