"""Published figures, reproduced: groups of rows, each kept apart from the others' failures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from attacks.errors import AttackError
from benchmarks.leakage import membership, shadows
from benchmarks.leakage.defences import robust
from benchmarks.leakage.evasion import attacks as evasion
from benchmarks.leakage.extraction import peers, stealing, tramer, tramer_encrypted
from benchmarks.leakage.poisoning import certified, networks
from benchmarks.rows import Json, Row
from he_infer.errors import HEInferError
from he_infer.progress import Progress

GROUPS: Final[Mapping[str, Callable[[], Iterable[Row]]]] = {
    "stealing": stealing.rows,
    "evasion": evasion.rows,
    "tramer": tramer.rows,
    "tramer-encrypted": tramer_encrypted.rows,
    "membership": membership.rows,
    "peers": peers.rows,
    "shadows": shadows.rows,
    "robustness": robust.rows,
    "poisoning": networks.rows,
    "certified": certified.rows,
}


def run(groups: Sequence[str], *, progress: Progress | None = None) -> list[Json]:
    """The rows of these groups in order, each with its "group".

    A group that fails is one row that does not hold.
    """
    found: list[Json] = []
    for done, name in enumerate(groups):
        if progress is not None:
            progress(f"reference rows: {name}", done, len(groups))
        try:
            rows = list(GROUPS[name]())
        except (AttackError, HEInferError) as error:
            reason = f"it failed: {error}"
            rows = [Row(f"the group {name!r}", "this project", holds=False, reason=reason)]
        found += [{"group": name, **row.to_json()} for row in rows]
    if progress is not None:
        progress("reference rows", len(groups), len(groups))
    return found
