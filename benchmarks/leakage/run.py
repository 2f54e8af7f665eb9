"""What a model leaks: published figures reproduced, and the paired table."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from attacks.errors import AttackError
from benchmarks.leakage import paired as leakage_paired
from benchmarks.leakage import reference as leakage_reference
from benchmarks.tables import rewrite
from he_infer.cli.console import progress_bars
from he_infer.errors import HEInferError


def main(options: argparse.Namespace) -> int:
    """Run one of the two, write ``--json``, print a line each; 0 unless a row fails."""
    import torch

    torch.set_num_threads(options.threads)
    try:
        return _reference(options) if options.reference else _paired(options)
    except (AttackError, HEInferError) as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2


def _reference(options: argparse.Namespace) -> int:
    chosen = _chosen(options.groups, tuple(leakage_reference.GROUPS), "--groups")
    with progress_bars() as progress:
        rows = leakage_reference.run(chosen, progress=progress)
    if options.json is not None and options.json.is_file() and options.groups:
        before = json.loads(options.json.read_text(encoding="utf-8"))
        _write(options, leakage_reference.merged(before, rows))
    else:
        _write(options, rows)
    if options.table is not None and options.json is not None:
        rewrite(options.table, options.json, "reference")
    print("\n".join(leakage_reference.lines(rows)))
    return 1 if any(row["holds"] is False for row in rows) else 0


def _paired(options: argparse.Namespace) -> int:
    chosen = _chosen(options.data, tuple(leakage_paired.CASES), "--data")
    with progress_bars() as progress:
        found = leakage_paired.run(
            ("digits",) if options.small else chosen,
            options.work,
            seed=options.seed,
            small=options.small,
            progress=progress,
            tell=lambda line: print(line, file=sys.stderr),
        )
    _write(options, found)
    print("\n".join(leakage_paired.markdown(found)))
    for name, reason in found["absent"].items():
        print(f"{name}: {reason}")
    return 0


def _chosen(given: str | None, known: Sequence[str], option: str) -> tuple[str, ...]:
    if not given:
        return tuple(known)
    names = tuple(name.strip() for name in given.split(",") if name.strip())
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise AttackError(f"{option} takes {', '.join(known)}, got {given!r}")
    return names


def _write(options: argparse.Namespace, result: Any) -> None:
    if options.json is None:
        return
    try:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise AttackError(f"cannot write {options.json}: {error.strerror}") from error
