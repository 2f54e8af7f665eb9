"""Records as grids, and the windows in them that Square changes.

(C, H, W) image ──► as it is       (d,) record ──► √d × √d if d is a square, else one row
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

# How the share of changed values falls over 10,000 queries (Andriushchenko et al. 2020, section
# 4): halved after each of these; another number of queries stretches the schedule.
_HALVINGS: Final = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_SCHEDULE_QUERIES: Final = 10_000
_TINY: Final = 1e-12


def grid_of(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, rows and columns in which a record of ``shape`` is looked at."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    features = math.prod(shape)
    side = math.isqrt(features)
    return (1, side, side) if side * side == features else (1, 1, features)


def share_at(query: int, queries: int, first: float) -> float:
    """The share of values that query number ``query`` of ``queries`` changes, from ``first``."""
    position = int(query / queries * _SCHEDULE_QUERIES)
    return math.ldexp(first, -sum(position > limit for limit in _HALVINGS))


def sides(share: float, rows: int, columns: int, *, least: int = 1) -> tuple[int, int]:
    """Height and width of a window with this share of the grid: a square where one fits."""
    side = max(round(math.sqrt(share * rows * columns)), least)
    if side <= min(rows, columns):
        return side, side
    if rows <= columns:
        return rows, min(columns, max(round(share * columns), least))
    return min(rows, max(round(share * rows), least)), columns


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Windows:
    """One window of equal sides for each of B records; ``top``, ``left`` (B,)."""

    top: Tensor
    left: Tensor
    height: int
    width: int

    @classmethod
    def random(
        cls, count: int, grid: tuple[int, int, int], sides: tuple[int, int], stream: torch.Generator
    ) -> Windows:
        _, rows, columns = grid
        height, width = sides
        return cls(
            top=torch.randint(0, rows - height + 1, (count,), generator=stream),
            left=torch.randint(0, columns - width + 1, (count,), generator=stream),
            height=height,
            width=width,
        )

    def mask(self, grid: tuple[int, int, int]) -> Tensor:
        """(B, 1, rows, columns), true inside."""
        _, rows, columns = grid
        row, column = torch.arange(rows)[None, :], torch.arange(columns)[None, :]
        in_rows = (row >= self.top[:, None]) & (row < self.top[:, None] + self.height)
        in_columns = (column >= self.left[:, None]) & (column < self.left[:, None] + self.width)
        return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]

    def index(self, channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Takes (B, channels, height, width) windows out of (B, channels, rows, columns)."""
        record = torch.arange(len(self.top))[:, None, None, None]
        channel = torch.arange(channels)[None, :, None, None]
        row = (self.top[:, None] + torch.arange(self.height))[:, None, :, None]
        column = (self.left[:, None] + torch.arange(self.width))[:, None, None, :]
        return record, channel, row, column


def pattern(height: int, width: int) -> Tensor:
    """The change of length 1 that Square adds in L2, (height, width): a bump beside its negative,
    cut along the longer side (appendix B of the paper)."""
    found = torch.zeros(height, width, dtype=torch.float64)
    if height >= width:
        found[: height // 2] = _bump(height // 2, width)
        found[height // 2 :] = -_bump(height - height // 2, width)
    else:
        found[:, : width // 2] = _bump(height, width // 2)
        found[:, width // 2 :] = -_bump(height, width - width // 2)
    return found / found.square().sum().sqrt()


def _bump(height: int, width: int) -> Tensor:
    """Rectangles around the middle, the r-th of height 1/r², stacked; length 1."""
    found = torch.zeros(height, width, dtype=torch.float64)
    row, column = height // 2, width // 2
    for ring in range(max(height // 2, width // 2) + 1):
        rows = slice(max(row - ring, 0), max(row + ring + 1, 0))
        columns = slice(max(column - ring, 0), max(column + ring + 1, 0))
        found[rows, columns] += 1 / (ring + 1) ** 2
    return found / found.square().sum().sqrt().clamp(min=_TINY)
