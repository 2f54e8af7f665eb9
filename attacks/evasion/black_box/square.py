"""Square (Andriushchenko et al. 2020): random squares of the input, kept where the margin falls.

    stripes or tiles of size ε ──► redraw one square ──ask──► better? keep it ──► smaller squares

Needs scores and no gradient, so a masked one does not help the target.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from attacks.core.oracle import Oracle
from attacks.core.result import AttackResult
from attacks.core.threat import ThreatModel
from attacks.errors import BudgetError, DataSplitError
from attacks.evasion.asking import Asker, generator_of
from attacks.evasion.best import Best
from attacks.evasion.black_box.windows import Windows, grid_of, pattern, share_at, sides
from attacks.evasion.goals import Goal, cross_entropy, margin
from attacks.evasion.norms import L2, Norm
from attacks.evasion.outcome import OVERHEAD, EvasionAttempt
from attacks.evasion.setting import EvasionData

_TINY: Final = 1e-12
# Deviations that a margin, a difference of two scores, has to be above noise.
_CLEAR: Final = 2 * math.sqrt(2)

# (changes so far (B, *grid), share of values to change) → new changes
Proposal = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    """``queries`` tries for each record, all records still open in one request a try.

    ``first_share``: of the values that the first square changes, p in the paper. Every try asks
    each record ``repeats`` times. ``norm`` None takes that of the data, another one its ball of
    equal volume. Needs logits or probabilities.
    """

    queries: int = 1000
    first_share: float = 0.8
    norm: Norm | None = None
    repeats: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.first_share <= 1:
            raise DataSplitError(
                f"a square holds a share above 0 and up to 1 of the values, got {self.first_share}"
            )

    def run(self, oracle: Oracle, data: EvasionData, rng: np.random.Generator) -> AttackResult:
        """Ask, move, judge; AbilityError without scores, BudgetError below one try."""
        oracle.info.require_scores("square")
        check_queries("square", self.queries, 1)
        data = data.within(self.norm)
        attempt = EvasionAttempt.start("square", oracle, data, repeats=self.repeats)
        best = self.search(attempt.asker, attempt.inputs, attempt.goal, data, generator_of(rng))
        return attempt.finish(best.inputs, rng, threat_model=ThreatModel.MALICIOUS_CLIENT)

    def search(
        self,
        asker: Asker,
        inputs: Tensor,
        goal: Goal,
        data: EvasionData,
        generator: torch.Generator,
    ) -> Best:
        """The best found for each of ``inputs`` (B, *shape); nothing is asked about one that
        reached its goal."""
        loss = margin if goal.wanted is None else cross_entropy
        grid = grid_of(data.records.shape)
        centers = inputs.reshape(len(inputs), *grid)
        rule = _Tiles if data.norm.name == L2().name else _Stripes
        moves = rule(grid=grid, epsilon=data.epsilon, stream=generator)
        best = Best.none_yet(inputs)
        for query in range(self.queries):
            chosen = best.open
            if not len(chosen):
                break
            center, part = centers[chosen], goal.select(chosen)
            if query == 0:
                change = moves.start(len(chosen))
            else:
                now = best.inputs[chosen].reshape(center.shape) - center
                change = moves.next(now, share_at(query - 1, self.queries, self.first_share))
            moved = (center + change).clamp(data.low, data.high).reshape(inputs[chosen].shape)
            scores, error = asker.scores(moved)
            # Of many tries noise makes one look wrong: what counts lies clear of it.
            reached = margin(scores, part) > _CLEAR * error
            best = best.at(chosen, Best(inputs=moved, reached=reached, losses=loss(scores, part)))
        return best


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Stripes:
    """L∞: every value at one end of its interval, signs drawn by column and then by square."""

    grid: tuple[int, int, int]
    epsilon: float
    stream: torch.Generator

    def start(self, count: int) -> Tensor:
        channels, rows, columns = self.grid
        # A single row has no columns to stripe.
        stripes = _signs((count, channels, 1, columns), self.stream)
        return self.epsilon * stripes.expand(count, channels, rows, columns)

    def next(self, change: Tensor, share: float) -> Tensor:
        _, rows, columns = self.grid
        windows = Windows.random(len(change), self.grid, sides(share, rows, columns), self.stream)
        drawn = self.epsilon * _signs((*change.shape[:2], 1, 1), self.stream)
        return torch.where(windows.mask(self.grid), drawn, change)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Tiles:
    """L2: tiles of bumps at first, then one window takes over what length another one had."""

    grid: tuple[int, int, int]
    epsilon: float
    stream: torch.Generator

    def start(self, count: int) -> Tensor:
        channels, rows, columns = self.grid
        height, width = max(rows // 5, 1), max(columns // 5, 1)
        tile = pattern(height, width)
        found = torch.zeros(count, *self.grid, dtype=torch.float64)
        for top in range((rows % height) // 2, rows - height + 1, height):
            for left in range((columns % width) // 2, columns - width + 1, width):
                signs = _signs((count, channels, 1, 1), self.stream)
                found[:, :, top : top + height, left : left + width] = tile * signs
        return self._full(found)

    def next(self, change: Tensor, share: float) -> Tensor:
        count, channels = change.shape[:2]
        size = self._sides(share)
        into = Windows.random(count, self.grid, size, self.stream)
        out_of = Windows.random(count, self.grid, size, self.stream)
        free = (self.epsilon**2 - _length(change, (1, 2, 3)) ** 2).clamp(min=0)
        both = into.mask(self.grid) | out_of.mask(self.grid)
        available = (free / channels + _length(change * both, (1, 2, 3)) ** 2).sqrt()
        old = change[into.index(channels)]
        turned = pattern(*size)
        if size[0] == size[1] and torch.rand(1, generator=self.stream) > 0.5:
            turned = turned.T
        new = turned * _signs((count, channels, 1, 1), self.stream)
        new = new + old / (_length(old, (2, 3)) + _TINY)
        new = new / (_length(new, (2, 3)) + _TINY) * available
        found = torch.where(out_of.mask(self.grid), torch.zeros_like(change), change)
        found[into.index(channels)] = new
        return self._full(found)

    def _sides(self, share: float) -> tuple[int, int]:
        """Odd and three or more, where the grid has room for it."""
        _, rows, columns = self.grid
        height, width = sides(share, rows, columns, least=3)
        return min(rows, height + 1 - height % 2), min(columns, width + 1 - width % 2)

    def _full(self, change: Tensor) -> Tensor:
        return self.epsilon * change / (_length(change, (1, 2, 3)) + _TINY)


def _length(change: Tensor, axes: tuple[int, ...]) -> Tensor:
    return change.square().sum(dim=axes, keepdim=True).sqrt()


def _signs(shape: tuple[int, ...], stream: torch.Generator) -> Tensor:
    return 2 * torch.randint(0, 2, shape, generator=stream).double() - 1


def per_record(budget: int, records: int, repeats: int = 1) -> int:
    """Tries that a budget leaves for each record beside the clean labels and the judgement."""
    return math.floor(budget / (records * repeats)) - OVERHEAD


def check_queries(attack: str, queries: int, minimum: int) -> None:
    """Raise BudgetError, which names the minimum, if ``queries`` a record cannot be enough."""
    if queries < minimum:
        raise BudgetError(
            f"{attack} asks each record at least {minimum + OVERHEAD} times, of which {OVERHEAD} "
            f"to see what it was and became; {queries + OVERHEAD} are allowed: give a larger "
            "budget or fewer records"
        )
