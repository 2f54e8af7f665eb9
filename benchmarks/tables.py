"""Markdown tables, and pages whose tables are rewritten between two marks from a record."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.rows import Json, bounds, short

_TRIED: Final = {True: "yes", False: "**no**", None: "not tried"}
_JUDGED: Final = {True: "holds", False: "**fails**", None: "not judged"}


def markdown(
    head: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = ()
) -> list[str]:
    """A table's lines; ``right``: the columns of ``head`` that are aligned to the right."""
    rule = "|" + "".join("---:|" if name in right else "---|" for name in head)
    cells = ([str(cell).replace("|", "\\|") for cell in row] for row in rows)
    return [f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(row)} |" for row in cells)]


def claims(rows: Sequence[Json]) -> list[str]:
    """One line for each claim about the service."""
    return markdown(
        ("claim", "bar", "figure", "holds"),
        [(row["name"], row["bar"], row["figure"], _TRIED[row["holds"]]) for row in rows],
    )


def references(rows: Sequence[Json]) -> list[str]:
    """One line for each published figure with ours beside it."""
    return markdown(
        ("row", "source", "published", "ours", ""),
        [
            (
                row["name"],
                row["source"],
                short(row["reference"]),
                f"{short(row['ours'])}{bounds(row['interval'])}",
                _JUDGED[row["holds"]],
            )
            for row in rows
        ],
    )


TABLES: Final[Mapping[str, Callable[[Sequence[Json]], list[str]]]] = {
    "claims": claims,
    "reference": references,
}


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
    table = "\n".join(TABLES[kind](json.loads(record.read_text(encoding="utf-8"))))
    return f"{before}{begin}\n{table}\n{close}{after}"
