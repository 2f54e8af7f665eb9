"""What defences of a served model cost the adversary, in records, and what they cost the owner.

    for each defence      in the clear, wrapped: every adversary with growing budgets, until 99 %
                          of the labels agree on test records and on uniform inputs
                          encrypted: levels, bits of the first prime, milliseconds, real keys

There are two kinds of adversary. One asks within the interval that inputs are meant to lie in. The
other leaves it as far as replies stay right, which no server that cannot read queries can prevent.
How far that is depends on the plan's first prime, and it is measured with real keys.
``benchmarks.defences.live`` repeats the cheapest adversaries over the service.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.defences import live, table
from benchmarks.defences.adversaries import (
    GOAL,
    adversaries,
    constants_floor,
    labels_alone,
    records_needed,
)
from benchmarks.defences.price import accuracy_served, priced
from benchmarks.defences.setting import MODEL, data_of, known_defences, strength_of
from benchmarks.record import Outcome, chosen, host
from benchmarks.rows import Json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--only", help="names of defences, separated by commas; all by default")
    add("--attacks", help="names of attacks, separated by commas; all by default")
    add("--noise-std", type=float, default=0.5, help="of noise flooding, in units of the logits")
    add("--most", type=int, default=32000, help="records that an adversary may ask")
    add("--live", type=Path, help="repeat a record's cheapest adversaries against served plans")
    add("--more", type=float, default=1.0, help="so many times the records of --live's record")
    add("--labels", type=int, nargs="*", default=[16000], help="labels-only budgets")
    add("--repeats", type=int, default=15, help="timed evaluations of each plan")
    add("--seed", type=int, default=0, help="of attacks and of the defences' draws")
    add("--threads", type=int, default=1, help="of torch")


def run(options: argparse.Namespace) -> Outcome:
    """Search in the clear, or repeat the record that ``--live`` names against the service."""

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if options.live is not None:
        found = live.run(options, tell)
        return Outcome(document=found, lines=table.live(found))
    found = search(options, tell)
    return Outcome(document=found, lines=table.lines(found))


def search(options: argparse.Namespace, tell: Callable[[str], None]) -> Json:
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
        std = strength_of(defence, "--noise-std")
        floor = None
        if std:
            spread = strength_of(defence, "--scaling") or 1.0
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
