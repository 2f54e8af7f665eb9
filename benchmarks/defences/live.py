"""The cheapest thief of each defence once more, against the service: real keys, real sockets.

``benchmarks.defences`` searches in the clear, behind wrappers that draw what plans draw. This
takes its record, compiles each defence into a plan, serves it on loopback, and lets the attacker
with the fewest records ask through encryption, inside the stated interval or out of it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence

import numpy as np

from attacks.defences.serving import ServingDefence
from attacks.errors import AttackError
from attacks.extraction.setting import ExtractionData
from attacks.oracles.remote import serve
from benchmarks.defences.setting import Row, chosen_of, data_of, known_defences, plan_for
from benchmarks.defences.thief import attackers
from benchmarks.record import host


def cheapest(cells: Sequence[Row]) -> Row:
    """The cell of an attacker who knows of the defence with the fewest records."""
    reached = [cell for cell in cells if cell["knows"] and cell["needed"] is not None]
    if not reached:
        raise AttackError("no attacker of the record reached the goal: search with a larger --most")
    return min(reached, key=lambda cell: int(cell["needed"]))


def run(options: argparse.Namespace, tell: Callable[[str], None]) -> Row:
    """One row a defence of the record ``--live``: what its cheapest attacker gets live, with
    ``--more`` times the records.

    Raises AttackError for a file that is no such record.
    """
    try:
        record = json.loads(options.live.read_text(encoding="utf-8"))
        found = {entry["defence"]: cheapest(entry["cells"]) for entry in record["defences"]}
        noise_std = float(record["noise_std"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AttackError(f"{options.live} is no record of this benchmark: {error}") from error
    known = known_defences(noise_std)
    chosen = chosen_of(known, options.only)
    data = data_of(options.seed)
    rows = []
    for name, cell in found.items():
        if name not in chosen or name == "precision":  # which was measured as noise in the clear
            continue
        asked = {**cell, "needed": round(options.more * cell["needed"])}
        rows.append(_steal(name, known[name], asked, data, options.seed))
        share, seconds = 100 * rows[-1]["uniform"]["value"], rows[-1]["seconds"]
        tell(f"{name}: {share:.1f} % of uniform inputs after {seconds:.0f} s")
    return {"seed": options.seed, "noise_std": noise_std, "host": host(), "live": rows}


def _steal(
    name: str, defence: ServingDefence | None, cell: Row, data: ExtractionData, seed: int
) -> Row:
    reach, queries = int(cell["reach"]), int(cell["needed"])
    plan = plan_for(defence, batch=1)
    attacker = next(a for a in attackers(name, queries, reach) if a.name == cell["attack"])
    start = time.monotonic()
    with serve(plan, low=0.5 - reach / 2, high=0.5 + reach / 2) as oracle:
        # Exactly as in the record, so that a difference is the service's.
        rng = np.random.default_rng([seed, queries, reach])
        result = attacker.build(queries).run(oracle, data, rng)
        spent = oracle.ledger.spent
    return {
        "defence": name,
        "attack": attacker.name,
        "reach": reach,
        "records": queries,
        "requests": spent.requests,
        "megabytes": round((spent.bytes_sent + spent.bytes_received) / 1e6),
        "test": result.metrics["fidelity_test"].to_json(),
        "uniform": result.metrics["fidelity_uniform"].to_json(),
        "seconds": round(time.monotonic() - start, 1),
    }


def lines(rows: Sequence[Row]) -> list[str]:
    """The rows as a Markdown table."""
    table = [
        "| defence | records | how far out | test records | uniform inputs | sent and received |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        shares = (
            f"{100 * row[of]['value']:.1f} % ({100 * row[of]['low']:.1f} … "
            f"{100 * row[of]['high']:.1f})"
            for of in ("test", "uniform")
        )
        table.append(
            f"| {row['defence']} | {row['records']:,} | "
            f"{row['reach']} × | {' | '.join(shares)} | {row['megabytes']} MB |"
        )
    return table
