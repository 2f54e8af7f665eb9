"""Published figures, reproduced: every group of rows, each kept apart from the others' failures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from attacks.errors import AttackError
from benchmarks.leakage import membership as leakage_membership
from benchmarks.leakage import shadows as leakage_shadows
from benchmarks.leakage.defences import robust as leakage_defences
from benchmarks.leakage.evasion import attacks as leakage_evasion
from benchmarks.leakage.extraction import peers as leakage_peers
from benchmarks.leakage.extraction import stealing as leakage_stealing
from benchmarks.leakage.extraction import tramer as leakage_tramer
from benchmarks.leakage.extraction import tramer_encrypted as leakage_tramer_encrypted
from benchmarks.leakage.poisoning import certified as leakage_poisoning_certified
from benchmarks.leakage.poisoning import networks as leakage_poisoning
from benchmarks.rows import FIELDS, Row, row, short
from he_infer.errors import HEInferError
from he_infer.progress import Progress

GROUPS: Final[Mapping[str, Callable[[], Sequence[Mapping[str, Any]]]]] = {
    "stealing": leakage_stealing.rows,
    "evasion": leakage_evasion.rows,
    "tramer": leakage_tramer.rows,
    "tramer-encrypted": leakage_tramer_encrypted.rows,
    "membership": leakage_membership.rows,
    "peers": leakage_peers.rows,
    "shadows": leakage_shadows.rows,
    "robustness": leakage_defences.rows,
    "poisoning": leakage_poisoning.rows,
    "certified": leakage_poisoning_certified.rows,
}


def run(groups: Sequence[str], *, progress: Progress | None = None) -> list[Row]:
    """The rows of these groups in order, each with its "group".

    A group that fails is one row that does not hold.
    """
    found: list[Row] = []
    for done, name in enumerate(groups):
        if progress is not None:
            progress(f"reference rows: {name}", done, len(groups))
        try:
            rows = [checked(each) for each in GROUPS[name]()]
        except (AttackError, HEInferError) as error:
            failed = row(
                f"the group {name!r}",
                "this project",
                reference=None,
                ours=None,
                interval=None,
                holds=False,
                reason=f"it failed: {error}",
            )
            rows = [failed]
        found += [{"group": name, **each} for each in rows]
    if progress is not None:
        progress("reference rows", len(groups), len(groups))
    return found


def merged(before: Sequence[Row], found: Sequence[Row]) -> list[Row]:
    """``found`` in the place of the rows of its groups among ``before``, in the groups' order."""
    anew = {each["group"] for each in found}
    kept = [each for each in before if each["group"] in GROUPS and each["group"] not in anew]
    order = list(GROUPS)
    return sorted([*kept, *found], key=lambda each: order.index(each["group"]))


def checked(found: Mapping[str, Any]) -> Row:
    """``found`` with exactly FIELDS; AttackError for one that lacks a field or claims a NaN."""
    missing = [name for name in FIELDS if name not in found]
    if missing:
        raise AttackError(f"the row {found.get('name')!r} lacks {', '.join(missing)}")
    ours = found["ours"]
    if isinstance(ours, float) and not math.isfinite(ours):
        raise AttackError(f"the row {found['name']!r} holds no finite figure")
    if found["holds"] is None and not found["reason"]:
        raise AttackError(f"the row {found['name']!r} says neither whether it holds nor why not")
    # Comparisons of arrays' numbers give numpy's own kind of bool, which JSON does not know.
    holds = None if found["holds"] is None else bool(found["holds"])
    return {name: found[name] for name in FIELDS} | {"holds": holds}


def lines(rows: Sequence[Row]) -> list[str]:
    """One line a row, for people."""
    words = {True: "holds", False: "FAILS", None: "n/a"}
    return [
        f"{words[row['holds']]:<6}{row['name']}: ours {short(row['ours'])}"
        f"{_interval(row['interval'])}, reference {short(row['reference'])} ({row['source']})"
        for row in rows
    ]


def _interval(value: Any) -> str:
    return f" [{short(float(value[0]))}, {short(float(value[1]))}]" if value else ""
