"""Path finding: a decision tree whose answers tell its leaves apart, leaf by leaf.

    from a record in a leaf, along every axis:

        low ├──────┤ leaf 3 ├──┤ x ├─────┤ leaf 7 ├──────┤ high
                               └ bisect where the answer changes ┘

    the interval around x is a side of this leaf's box; a record beyond each end is in a leaf to
    look at next.

A leaf is a box, so where both ends of a line through it give one answer, so does what is
between, unless two leaves share an answer. A leaf is therefore known by its answer *and* by
where it is. Leaves that share hide others between them: a few random records in every box look
for those, and of boxes that overlap the smallest counts.

All axes of all leaves found so far are bisected together, one request per step.
Tramèr et al. 2016, section 4.2, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attacks.core.arrays import Floats
from attacks.core.intervals import exact
from attacks.core.oracle import Oracle, OracleInfo
from attacks.core.result import AttackResult
from attacks.errors import AbilityError, DataSplitError
from attacks.extraction.outcome import ExtractionAttempt
from attacks.extraction.setting import ExtractionData

_SAME_ANSWER: Final = 1e-9  # largest difference of scores that counts as one leaf
_SCORED_RECORDS: Final = 256
_FLOOR: Final = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LeafModel:
    """``low``, ``high`` (L, d): the boxes (low, high]; ``leaf_scores`` (L, classes).

    A record in several boxes belongs to the first; one in no box, in the crack that bisection
    leaves between two, to the nearest.
    """

    low: Floats
    high: Floats
    leaf_scores: Floats

    def leaves(self, inputs: Floats) -> NDArray[np.int64]:
        """(B,) which box each record is in, or nearest to."""
        flat = inputs.reshape(len(inputs), -1)
        parts = []
        for first in range(0, len(flat), _SCORED_RECORDS):
            rows = flat[first : first + _SCORED_RECORDS, None]  # (b, 1, d)
            outside = np.maximum(np.maximum(self.low - rows, rows - self.high), 0.0)  # (b, L, d)
            parts.append(outside.sum(axis=2).argmin(axis=1))
        return np.concatenate(parts)

    def scores(self, inputs: Floats) -> Floats:
        return np.asarray(self.leaf_scores[self.leaves(inputs)])


@dataclass(frozen=True, slots=True, kw_only=True)
class PathFinding:
    """Find the leaves of a tree with at most ``queries`` records.

    ``precision``: of a threshold, as a share of [low, high]. ``checks``: random records asked in
    every box, for leaves that shared answers hide. ``run`` starts from a random record,
    raises AbilityError if the oracle answers labels only, BudgetError below the minimum; a
    budget that ends early gives the leaves found so far and says so in the notes.
    """

    queries: int
    precision: float = 1e-7
    checks: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.precision < 0.5 or self.checks < 0:
            raise DataSplitError(
                f"expected a precision between 0 and 0.5 of the box and no negative checks, got "
                f"{self.precision} and {self.checks}"
            )

    def minimum_queries(self, info: OracleInfo) -> int:
        """The first record and both ends of every axis through it."""
        return 1 + 2 * info.features

    def run(self, oracle: Oracle, data: ExtractionData, rng: np.random.Generator) -> AttackResult:
        info = oracle.info
        if info.kind != "plaintext":
            raise AbilityError(
                f"path finding needs answers that are equal within a leaf to 1e-9, and {info.name} "
                "answers with noise: use it on a plaintext oracle"
            )
        attempt = ExtractionAttempt.start("path-finding", self, oracle, data, needs_scores=True)
        search = _Search(oracle, self.queries, self.precision, self.checks, rng)
        is_complete = search.run(rng.uniform(info.low, info.high, (1, info.features)))
        used = self.queries - search.left
        notes = [] if is_complete else ["the budget ended before every leaf was looked at"]
        shared = len(search.low) - len(_distinct(search.scores))
        if shared:
            notes.append(f"{shared} of {len(search.low)} leaves share their answer with another")
        model = search.model()
        return attempt.finish(
            model,
            rng,
            used=used,
            extra={
                "queries": exact(used, count=1),
                "leaves": exact(len(search.low), count=1),
            },
            notes=notes,
        )


class _OutOfBudget(Exception):
    """The next request does not fit what is left."""


class _Search:
    """Boxes found so far, and the budget."""

    def __init__(
        self, oracle: Oracle, queries: int, precision: float, checks: int, rng: np.random.Generator
    ) -> None:
        self._oracle = oracle
        self._width = precision * (oracle.info.high - oracle.info.low)
        self._checks = checks
        self._rng = rng
        self.left = queries
        self.low: list[Floats] = []
        self.high: list[Floats] = []
        self._scores: list[Floats] = []

    @property
    def scores(self) -> Floats:
        return np.array(self._scores)

    def run(self, start: Floats) -> bool:
        """Explore from ``start`` (1, d); False if the budget ended first."""
        waiting, answers = start, self._ask(start)
        while len(waiting):
            point, answer = waiting[0], answers[0]
            waiting, answers = waiting[1:], answers[1:]
            if self._is_known(point, answer):
                continue
            try:
                beyond, beyond_answers = self._explore(point, answer)
            except _OutOfBudget:
                self._keep_point(point, answer)
                return False
            waiting = np.concatenate([waiting, beyond])
            answers = np.concatenate([answers, beyond_answers])
        return True

    def _ask(self, flat: Floats) -> Floats:
        """(B, classes) scores."""
        if len(flat) > self.left:
            raise _OutOfBudget
        self.left -= len(flat)
        answer = self._oracle.query(flat.reshape(len(flat), *self._oracle.info.input_shape))
        if answer.probabilities is not None:
            return np.log(np.maximum(answer.probabilities, _FLOOR))
        return answer.require_scores()

    def _is_known(self, point: Floats, answer: Floats) -> bool:
        if not self.low:
            return False
        # Records to look at lie a hair beyond some threshold, perhaps within a box's own crack.
        above = np.array(self.low) - self._width < point
        inside = (above & (point <= np.array(self.high) + self._width)).all(axis=1)
        same = _same(self.scores, answer[None])
        return bool((inside & same).any())

    def _keep_point(self, point: Floats, answer: Floats) -> None:
        """A leaf of which one record is known: a box of no size, for the nearest-box rule."""
        self.low.append(point)
        self.high.append(point)
        self._scores.append(answer)

    def _explore(self, point: Floats, answer: Floats) -> tuple[Floats, Floats]:
        """Bisect both ways along every axis, keep the box, return records just beyond it."""
        info = self._oracle.info
        axes = np.tile(np.arange(len(point)), 2)  # downwards, then upwards
        inner = point[axes]
        outer = np.repeat([info.low, info.high], len(point)).astype(np.float64)
        outer_answers = self._ask(self._moved(point, axes, outer))
        open_lines = ~_same(outer_answers, answer[None])
        edge = outer.copy()
        lines = np.flatnonzero(open_lines)
        near, far, far_answers = inner[lines], outer[lines], outer_answers[lines]
        while len(lines) and np.abs(far - near).max() > self._width:
            middle = (near + far) / 2
            replies = self._ask(self._moved(point, axes[lines], middle))
            stays = _same(replies, answer[None])
            near, far = np.where(stays, middle, near), np.where(stays, far, middle)
            far_answers = np.where(stays[:, None], far_answers, replies)
        edge[lines] = (near + far) / 2
        # Nothing lies below the box's own low, and (low, high] would leave low itself out.
        edge[: len(point)][~open_lines[: len(point)]] = -np.inf
        self.low.append(edge[: len(point)])
        self.high.append(edge[len(point) :])
        self._scores.append(answer)
        beyond = self._moved(point, axes[lines], far)
        inside = self._rng.uniform(
            np.maximum(self.low[-1], info.low), self.high[-1], (self._checks, len(point))
        )
        if self._checks and len(inside) <= self.left:
            replies = self._ask(inside)
            hidden = ~_same(replies, answer[None])
            beyond = np.concatenate([beyond, inside[hidden]])
            far_answers = np.concatenate([far_answers, replies[hidden]])
        return beyond, far_answers

    def model(self) -> LeafModel:
        """The boxes found, the smallest first."""
        low, high = np.array(self.low), np.array(self.high)
        sides = high - np.maximum(low, self._oracle.info.low)
        order = np.log(np.maximum(sides, self._width)).sum(axis=1).argsort(kind="stable")
        return LeafModel(low=low[order], high=high[order], leaf_scores=self.scores[order])

    @staticmethod
    def _moved(point: Floats, axes: NDArray[np.int64], values: Floats) -> Floats:
        """(lines, d): the record with one coordinate replaced in each."""
        moved = np.repeat(point[None], len(axes), axis=0)
        moved[np.arange(len(axes)), axes] = values
        return moved


def _same(left: Floats, right: Floats) -> NDArray[np.bool_]:
    return np.asarray(np.abs(left - right).max(axis=-1) <= _SAME_ANSWER)


def _distinct(scores: Floats) -> Floats:
    return np.unique(np.round(scores, 8), axis=0)
