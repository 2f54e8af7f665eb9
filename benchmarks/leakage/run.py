"""What a model leaks: published figures reproduced, and the paired table."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.record import Outcome, chosen
from he_infer.cli.console import progress_bars


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--reference", action="store_true", help="published figures, reproduced")
    what.add_argument("--paired", action="store_true", help="every attack on every twin")
    add = parser.add_argument
    add("--groups", help="reference: a list, all by default; others in the JSON file stay")
    add("--table", type=Path, help="reference: page whose table is rewritten")
    add("--data", default="digits,mnist,fashion-mnist", help="paired: which data sets")
    add("--small", action="store_true", help="paired: a minute's worth, on digits")
    add("--work", type=Path, default=Path("records/leakage"), help="paired: resumes what is there")
    add("--seed", type=int, default=0, help="paired: of shadows, targets and attacks")
    add("--threads", type=int, default=1, help="of torch")


def run(options: argparse.Namespace) -> Outcome:
    """The reference rows or the paired audits; a row that fails misses the bar."""
    return _reference(options) if options.reference else _paired(options)


def _reference(options: argparse.Namespace) -> Outcome:
    from benchmarks import rows
    from benchmarks.leakage import reference

    names = chosen(options.groups, reference.GROUPS, "--groups")
    with progress_bars() as progress:
        found = reference.run(names, progress=progress)
    document = found
    if options.json is not None and options.json.is_file() and options.groups:
        before = json.loads(options.json.read_text(encoding="utf-8"))
        document = rows.merged(before, found, list(reference.GROUPS))
    return Outcome(
        document=document,
        lines=rows.lines(found),
        holds=all(row["holds"] is not False for row in found),
        table="reference",
    )


def _paired(options: argparse.Namespace) -> Outcome:
    from benchmarks.leakage import paired

    names = chosen(options.data, paired.CASES, "--data")
    with progress_bars() as progress:
        found = paired.run(
            ["digits"] if options.small else names,
            options.work,
            seed=options.seed,
            small=options.small,
            progress=progress,
            tell=lambda line: print(line, file=sys.stderr),
        )
    absent = [f"{name}: {reason}" for name, reason in found["absent"].items()]
    return Outcome(document=found, lines=[*paired.table(found), *absent])
