"""What defences of a served model cost a thief, in records, and what they cost the owner.

    for each defence      in the clear, wrapped: every attacker, budgets upwards, until 99 % of the
                          labels agree on test records and on uniform inputs
                          encrypted: levels, bits of the first prime, milliseconds, real keys

Two thieves: one asks within the interval that inputs are meant to lie in, one leaves it as far as
replies stay right, which no server that cannot read queries can prevent. How far that is, the
plan's first prime decides; it is measured with real keys. ``defences_live`` repeats the cheapest
of them over the service.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

import torch

from attacks.errors import AttackError
from benchmarks.defences import live as defences_live
from benchmarks.defences.price import accuracy_served, priced
from benchmarks.defences.setting import MODEL, Row, chosen_of, data_of, known_defences
from benchmarks.defences.table import lines
from benchmarks.defences.thief import GOAL, attackers, constants_floor, labels_alone, records_needed
from benchmarks.record import host
from he_infer.errors import HEInferError


def run(options: argparse.Namespace, tell: Callable[[str], None]) -> Row:
    """Everything, as one JSON object."""
    data = data_of(options.seed)
    known = known_defences(options.noise_std)
    chosen = chosen_of(known, options.only)
    wanted = options.attacks.split(",") if options.attacks else ()
    costs = {str(batch): priced(known, chosen, batch, options) for batch in (1, 256)}
    tell("prices: done")
    found: list[Row] = []
    for name in chosen:
        defence = known[name]
        cells = []
        for reach in sorted({1, costs["1"][name]["reach"]}):
            for attacker in attackers(
                "noise" if name == "precision" else name, options.most, reach
            ):
                if wanted and attacker.name not in wanted:
                    continue
                cell = records_needed(attacker, defence, reach, data, options.seed)
                cells.append({"reach": reach, **cell})
                tell(f"{name}, reach {reach}, {attacker.name}: {cell['needed'] or 'not reached'}")
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


def main(options: argparse.Namespace) -> int:
    """Measure, write ``--json``, print the table; 2 for an error."""
    torch.set_num_threads(options.threads)
    live = options.live is not None
    try:
        found = (defences_live.run if live else run)(
            options, lambda line: print(line, file=sys.stderr, flush=True)
        )
    except (AttackError, HEInferError) as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("\n".join(defences_live.lines(found["live"]) if live else lines(found)))
    return 0
