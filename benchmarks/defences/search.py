"""The search in the clear, behind wrappers that draw what plans draw, and the plans' prices."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks.defences.adversaries import (
    GOAL,
    adversaries,
    constants_floor,
    labels_alone,
    records_needed,
)
from benchmarks.defences.price import accuracy_served, priced
from benchmarks.defences.setting import MODEL, data_of, known_defences
from benchmarks.record import chosen, host
from benchmarks.rows import Json


def run(options: argparse.Namespace, tell: Callable[[str], None]) -> Json:
    """Records that each adversary needs and the price of each defence, as one JSON object."""
    data = data_of(options.seed)
    known = known_defences(options.noise_std)
    names = chosen(options.only, known, "--only")
    wanted = options.attacks.split(",") if options.attacks else ()
    costs = {str(batch): priced(known, names, batch, options) for batch in (1, 256)}
    tell("prices: done")
    found: list[Json] = []
    for name in names:
        defence = known[name]
        cells = []
        for reach in sorted({1, costs["1"][name]["reach"]}):
            kind = "noise" if name == "precision" else name
            for adversary in adversaries(kind, options.most, reach):
                if wanted and adversary.name not in wanted:
                    continue
                cell = records_needed(adversary, defence, reach, data, options.seed)
                cells.append({"reach": reach, **cell})
                tell(f"{name}, reach {reach}, {adversary.name}: {cell['needed'] or 'not reached'}")
        floor = None
        if defence is not None and not defence.keeps_labels:
            std, spread = defence.privacy["noise_std"], defence.privacy.get("scaling", 1.0)
            floor = constants_floor(std, spread, data, options.seed)
        found.append(
            {
                "defence": name,
                "keeps_labels": defence is None or defence.keeps_labels,
                **accuracy_served(defence, data, options.seed),
                "constants_floor": floor,
                "cells": cells,
            }
        )
    return {
        "model": MODEL,
        "goal": GOAL,
        "noise_std": options.noise_std,
        "seed": options.seed,
        "host": host(),
        "defences": found,
        "prices": costs,
        "labels_alone": [labels_alone(data, n, options.seed) for n in options.labels],
    }
