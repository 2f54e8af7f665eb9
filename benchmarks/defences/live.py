"""The cheapest adversary of each defence once more, against the service with real keys.

``benchmarks.defences.search`` works in the clear, behind wrappers that draw what plans draw. This
module takes its record, compiles each defence into a plan and serves it on loopback. The adversary
with the fewest records then asks through encryption, inside the stated interval or outside it.
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
from benchmarks.defences.adversaries import adversaries, fidelity_of
from benchmarks.defences.setting import data_of, known_defences, plan_for
from benchmarks.record import chosen, host
from benchmarks.rows import Json


def cheapest(cells: Sequence[Json]) -> Json:
    """The cell of the adversary who knows of the defence and needs the fewest records."""
    reached = [cell for cell in cells if cell["knows"] and cell["needed"] is not None]
    if not reached:
        raise AttackError(
            "no adversary of the record reached the goal: search with a larger --most"
        )
    return min(reached, key=lambda cell: int(cell["needed"]))


def run(options: argparse.Namespace, tell: Callable[[str], None]) -> Json:
    """What the cheapest adversary of each defence in the record ``--live`` gets from the service.

    It asks ``--more`` times the records that the record says it needs.
    Raises AttackError for a file that is no such record.
    """
    try:
        record = json.loads(options.live.read_text(encoding="utf-8"))
        found = {entry["defence"]: cheapest(entry["cells"]) for entry in record["defences"]}
        noise_std = float(record["noise_std"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AttackError(f"{options.live} is no record of this benchmark: {error}") from error
    known = known_defences(noise_std)
    only = chosen(options.only, known, "--only")
    data = data_of(options.seed)
    rows = []
    for name, cell in found.items():
        if name not in only or name == "precision":  # which was measured as noise in the clear
            continue
        asked = {**cell, "needed": round(options.more * cell["needed"])}
        rows.append(_steal(name, known[name], asked, data, options.seed))
        share, seconds = 100 * rows[-1]["uniform"]["value"], rows[-1]["seconds"]
        tell(f"{name}: {share:.1f} % of uniform inputs after {seconds:.0f} s")
    return {"seed": options.seed, "noise_std": noise_std, "host": host(), "live": rows}


def _steal(
    name: str, defence: ServingDefence | None, cell: Json, data: ExtractionData, seed: int
) -> Json:
    reach, queries = int(cell["reach"]), int(cell["needed"])
    plan = plan_for(defence, batch=1)
    adversary = next(a for a in adversaries(name, queries, reach) if a.name == cell["attack"])
    start = time.monotonic()
    with serve(plan, low=0.5 - reach / 2, high=0.5 + reach / 2) as oracle:
        # Exactly as in the record, so that a difference is the service's.
        rng = np.random.default_rng([seed, queries, reach])
        result = adversary.build(queries).run(oracle, data, rng)
        spent = oracle.ledger.spent
    return {
        "defence": name,
        "attack": adversary.name,
        "reach": reach,
        "records": queries,
        "requests": spent.requests,
        "megabytes": round((spent.bytes_sent + spent.bytes_received) / 1e6),
        **fidelity_of(result),
        "seconds": round(time.monotonic() - start, 1),
    }
