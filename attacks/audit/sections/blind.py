"""The blind baseline of an audit: pooled over targets, since one model's split says little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attacks.audit.bench.cell import DONE, Cell
from attacks.audit.bench.state import CellName, StateStore
from attacks.audit.figures.crosswise import draw_crosswise
from attacks.core.intervals import Estimate
from attacks.core.records import Records
from attacks.core.roc import auc
from attacks.membership.blind import BlindBaseline
from attacks.membership.outcome import MembershipScores
from attacks.progress import Progress

NOBODY = "nobody"  # the twin that a blind attacker asks
BLIND = "blind"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindFigure:
    """``holds``: 0.5 is not below the interval of ``auc``."""

    auc: Estimate
    holds: bool
    note: str

    def to_json(self) -> dict[str, Any]:
        return {"auc": self.auc.to_json(), "holds": self.holds, "note": self.note}


def blind_figure(
    pool: Records,
    masks: Mapping[int, NDArray[np.bool_]],
    store: StateStore,
    *,
    seed: int,
    progress: Progress | None = None,
) -> BlindFigure:
    """Judge the split of every target in ``masks`` without a single query."""
    found: list[MembershipScores] = []
    for done, (target, mask) in enumerate(masks.items(), start=1):
        name = CellName(twin=NOBODY, attack=BLIND, target=target)
        saved = store.load(name)
        if saved is None:
            # One stream for all targets, so that each is judged on the same records.
            scored = BlindBaseline().scores(pool, mask, np.random.default_rng([seed, 3]))
            figure = auc(scored.scores, scored.is_member)
            cell = Cell(status=DONE, primary="auc", metrics={"auc": figure}, scored=scored)
            store.save(name, cell.to_json())
        else:
            cell = Cell.from_json(saved)
        assert cell.scored is not None
        found.append(cell.scored)
        if progress is not None:
            progress("blind baseline", done, len(masks))
    return judge_blind(found, np.random.default_rng([seed, 4]))


def judge_blind(found: Sequence[MembershipScores], rng: np.random.Generator) -> BlindFigure:
    """The verdict on one or more targets."""
    if len(found) > 1:
        figure = draw_crosswise({NOBODY: found}, rng).metrics(NOBODY)["auc"]
    else:
        figure = auc(found[0].scores, found[0].is_member)
    holds = figure.low <= 0.5
    if holds:
        note = f"a classifier that never asks the model gets AUC {figure}: no better than a coin"
    else:
        note = (
            f"the split leaks: a classifier that never asks the model tells members from "
            f"non-members with AUC {figure}, so no membership figure of this audit means anything"
        )
    return BlindFigure(auc=figure, holds=holds, note=note)
