"""HopSkipJump (Chen, Jordan and Wainwright 2020): labels only, along the border towards the record.

    a record of another class ──halve the way──► border ──ask around──► direction of the border
                                    ▲                                        │
                                    └──────────── step along it ◄────────────┘

Every phase is one request for all records that are still further away than epsilon.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from attacks.core.intervals import bootstrap
from attacks.core.oracle import Oracle
from attacks.core.result import AttackResult
from attacks.core.threat import ThreatModel
from attacks.errors import DataSplitError
from attacks.evasion.asking import Asker, generator_of
from attacks.evasion.black_box.square import check_queries
from attacks.evasion.goals import Goal
from attacks.evasion.norms import Linf, Norm, beside
from attacks.evasion.outcome import EvasionAttempt
from attacks.evasion.setting import EvasionData

_FIRST_PROBE: Final = 0.1  # of the interval: how far around the first border point is asked
_FINENESS: Final = 0.01  # θ of the authors' code, over √d in L2 and over d in L∞
_HALVINGS: Final = 20  # of a step that leaves the wrong side; it is dropped after these
_MOST_AROUND: Final = 10_000
# Records in one request at most: what is asked around many records does not fit in memory.
_TOGETHER: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HopSkipJump:
    """At most ``queries`` for each record; one that is within epsilon is asked about no more.

    ``around``: points asked in the first round to tell the border's direction, √round times as
    many later. ``starts``: random records tried where none of the adversary's own has a wanted
    label. Every point is asked ``repeats`` times. ``norm`` None takes that of the data, another
    one its ball of equal volume.
    """

    queries: int = 2000
    around: int = 100
    starts: int = 20
    norm: Norm | None = None
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.around < 2 or self.starts < 0:
            raise DataSplitError(
                f"a direction takes at least 2 points around, and starts are 0 or more, got "
                f"{self.around} and {self.starts}"
            )

    def minimum_queries(self, features: int, norm: Norm) -> int:
        """To find the border from a start, and take one direction."""
        return self.starts + 2 * _way_halvings(norm, features) + self.around + 2

    def run(self, oracle: Oracle, data: EvasionData, rng: np.random.Generator) -> AttackResult:
        """Ask, move, judge; BudgetError below ``minimum_queries``.

        Metric "median_size": of the smallest change that the budget found, over the records it
        found one for; it may lie above epsilon.
        """
        data = data.within(self.norm)
        check_queries(
            "hopskipjump", self.queries, self.minimum_queries(oracle.info.features, data.norm)
        )
        attempt = EvasionAttempt.start("hopskipjump", oracle, data, repeats=self.repeats)
        walk = _Walk(
            attack=self,
            asker=attempt.asker,
            data=data,
            inputs=attempt.inputs,
            goal=attempt.goal,
            stream=generator_of(rng),
        )
        found = walk.run(_nearest_starts(data, attempt))
        sizes = data.norm.size(found - attempt.inputs)
        within = (sizes <= data.epsilon) & (sizes > 0)
        moved = attempt.inputs.clone()
        moved[within] = walk.off_border(torch.nonzero(within)[:, 0], found[within])
        away = sizes[sizes > 0].numpy()
        extra = {}
        if len(away) > 1:
            extra["median_size"] = bootstrap(
                lambda chosen: float(np.median(away[chosen])),
                len(away),
                rng,
                method="bootstrap over records",
            )
        notes = (
            ()
            if len(away) == len(sizes)
            else (f"{len(sizes) - len(away)} records had no start with a wanted label",)
        )
        return attempt.finish(
            moved, rng, threat_model=ThreatModel.MALICIOUS_CLIENT, notes=notes, extra=extra
        )


def _nearest_starts(data: EvasionData, attempt: EvasionAttempt) -> Tensor:
    """For every record attacked, the nearest of the adversary's own with a wanted label.

    Their labels were asked before, so these starts cost nothing; a record without one is NaN.
    """
    own = data.inputs()
    found = torch.full_like(attempt.inputs, torch.nan)
    for at, center in enumerate(attempt.inputs):
        reached = Goal(
            labels=attempt.goal.labels[at].expand(len(own)),
            wanted=None if attempt.goal.wanted is None else attempt.goal.wanted[at],
        ).reached(attempt.labels)
        sizes = data.norm.size(own - center)
        sizes[~reached] = torch.inf
        if reached.any():
            found[at] = own[sizes.argmin()]
    return found


def _way_halvings(norm: Norm, features: int) -> int:
    """How often a way to the border is halved, by the authors' fineness."""
    fineness = _FINENESS / (features if norm.name == Linf().name else math.sqrt(features))
    return math.ceil(-math.log2(fineness))


@dataclass(slots=True, kw_only=True, eq=False)
class _Walk:
    """All records on their way at once."""

    attack: HopSkipJump
    asker: Asker
    data: EvasionData
    inputs: Tensor
    goal: Goal
    stream: torch.Generator

    def run(self, starts: Tensor) -> Tensor:
        """The nearest wrong points found, (B, *shape); the record itself where there is none."""
        attack, features = self.attack, self.inputs[0].numel()
        halvings = _way_halvings(self.data.norm, features)
        self._draw_missing(starts)
        on_way = torch.nonzero(~starts.isnan().flatten(1).any(dim=1))[:, 0]
        found = self.inputs.clone()
        found[on_way] = starts[on_way]
        # One is kept for leaving the border at the end.
        left = attack.queries - attack.starts - halvings - 1
        found[on_way] = self._to_border(on_way, found[on_way])
        for count in range(1, attack.queries):
            far = self.data.norm.size(found - self.inputs) > self.data.epsilon
            on_way = on_way[far[on_way]]
            around = min(int(attack.around * math.sqrt(count)), _MOST_AROUND)
            # What a round costs at most: steps are mostly accepted within a few halvings.
            around = min(around, left - halvings - 1)
            if not len(on_way) or around < 2:
                break
            border = found[on_way]
            direction = self._direction(on_way, border, around, first=count == 1)
            left -= around + halvings
            moved, asked = self._step(on_way, border, direction, count, most=left)
            left -= asked
            nearer = self._to_border(on_way, moved)
            sizes = self.data.norm.size(nearer - self.inputs[on_way])
            better = sizes < self.data.norm.size(border - self.inputs[on_way])
            found[on_way[better]] = nearer[better]
        return found

    def off_border(self, chosen: Tensor, points: Tensor) -> Tensor:
        """The points moved on as far as epsilon allows, where that is still wrong.

        A point on the border itself falls to either side when the oracle's noise is drawn again.
        """
        if not len(chosen):
            return points
        center = self.inputs[chosen]
        change = points - center
        grown = beside(self.data.epsilon / self.data.norm.size(change), change) * change
        further = (center + grown).clamp(self.data.low, self.data.high)
        reached = self._reached(chosen, further)
        return torch.where(beside(reached, points), further, points)

    def _draw_missing(self, starts: Tensor) -> None:
        """Random records for those without a start, one each a request."""
        for _ in range(self.attack.starts):
            missing = torch.nonzero(starts.isnan().flatten(1).any(dim=1))[:, 0]
            if not len(missing):
                return
            drawn = torch.rand(starts[missing].shape, generator=self.stream, dtype=starts.dtype)
            drawn = self.data.low + (self.data.high - self.data.low) * drawn
            reached = self._reached(missing, drawn)
            starts[missing[reached]] = drawn[reached]

    def _reached(self, chosen: Tensor, points: Tensor) -> Tensor:
        """Whether each point, one per chosen record, is labelled as wanted."""
        parts = [
            self.goal.select(chosen[at : at + _TOGETHER]).reached(
                self.asker.labels(points[at : at + _TOGETHER])
            )
            for at in range(0, len(points), _TOGETHER)
        ]
        return torch.cat(parts)

    def _to_border(self, chosen: Tensor, points: Tensor) -> Tensor:
        """The wrong side of the border on the way from each record to its wrong point.

        In L2 on the straight line; in L∞ by cutting changes off at a size.
        """
        center = self.inputs[chosen]
        between = self._way(center, points)
        low = torch.zeros(len(chosen), dtype=points.dtype)
        high = torch.ones(len(chosen), dtype=points.dtype)
        for _ in range(_way_halvings(self.data.norm, center[0].numel())):
            middle = (low + high) / 2
            reached = self._reached(chosen, between(middle))
            low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
        return between(high)

    def _way(self, center: Tensor, points: Tensor) -> Callable[[Tensor], Tensor]:
        change = points - center
        if self.data.norm.name != Linf().name:
            return lambda share: center + beside(share, change) * change
        size = Linf().size(change)

        def cut(share: Tensor) -> Tensor:
            limit = beside(share * size, change)
            return center + change.clamp(-limit, limit)

        return cut

    def _direction(self, chosen: Tensor, border: Tensor, around: int, *, first: bool) -> Tensor:
        """Into the wrong side: the mean of probes there less that of probes on the right side.

        Equation 9 of the paper, with the mean answer taken off (equation 16).
        """
        data = self.data
        linf = data.norm.name == Linf().name
        sizes = data.norm.size(border - self.inputs[chosen])
        if first:
            reach = torch.full_like(sizes, _FIRST_PROBE * (data.high - data.low))
        else:
            # d·θ in L∞ and √d·θ in L2 are both the fineness itself.
            reach = _FINENESS * sizes
        shape = (len(chosen), around, *border.shape[1:])
        if linf:
            drawn = 2 * torch.rand(shape, generator=self.stream, dtype=border.dtype) - 1
        else:
            drawn = torch.randn(shape, generator=self.stream, dtype=border.dtype)
        lengths = drawn.flatten(2).square().sum(dim=2).sqrt()
        drawn = drawn / lengths.reshape(*lengths.shape, *[1] * (border.ndim - 1))
        wide = beside(reach, border)[:, None]
        probes = (border[:, None] + wide * drawn).clamp(data.low, data.high)
        drawn = (probes - border[:, None]) / wide
        owners = chosen.repeat_interleave(around)
        reached = self._reached(owners, probes.reshape(-1, *border.shape[1:]))
        signs = 2 * reached.reshape(len(chosen), around).to(border.dtype) - 1
        mean = signs.mean(dim=1, keepdim=True)
        weights = torch.where(mean.abs() == 1, signs, signs - mean)
        weights = weights.reshape(*weights.shape, *[1] * (border.ndim - 1))
        return data.norm.steepest((weights * drawn).mean(dim=1))

    def _step(
        self, chosen: Tensor, border: Tensor, direction: Tensor, count: int, *, most: int
    ) -> tuple[Tensor, int]:
        """Along the direction, the step halved until it stays wrong; and what a record asked."""
        sizes = self.data.norm.size(border - self.inputs[chosen]) / math.sqrt(count)
        moved, asked = border.clone(), 0
        going = torch.arange(len(chosen))
        for halving in range(min(_HALVINGS, most)):
            step = beside(sizes[going] / 2**halving, border)
            trial = (border[going] + step * direction[going]).clamp(self.data.low, self.data.high)
            reached = self._reached(chosen[going], trial)
            moved[going[reached]] = trial[reached]
            going, asked = going[~reached], asked + 1
            if not len(going):
                break
        return moved, asked
