"""What every command prints with: progress bars on stderr, tables or JSON on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from he_infer.progress import Progress


@contextmanager
def progress_bars() -> Iterator[Progress | None]:
    """A Progress that draws on stderr; None where nobody watches (pipes, logs)."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    tasks: dict[str, Any] = {}

    def draw(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total)
        bars.update(tasks[stage], completed=done, total=total)

    with bars:
        yield draw


def print_json(value: Any) -> None:
    """One JSON document on stdout, for programs."""
    print(json.dumps(value, indent=2, allow_nan=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Left-aligned columns, plain enough to be piped."""
    print(*table_lines(header, rows), sep="\n")


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines that ``print_table`` prints."""
    table = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """``name   value`` lines with the values in one column."""
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        print(f"{name.ljust(width)}  {value}")


def warn(message: str) -> None:
    """One line on stderr that does not stop the command."""
    print(f"he-infer: warning: {message}", file=sys.stderr)


def megabytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count < 10_000_000 else f"{count / 1e6:.1f} MB"
