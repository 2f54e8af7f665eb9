"""Where the features of a tensor sit in slots.

With ``batch`` records per query, slot = feature slot · batch + record, so a ciphertext has
``slots = N/2 / batch`` feature slots and everything below counts in those. batch = 1 is the
latency layout; batch = N/2 leaves one feature per ciphertext, the throughput layout, in which
no rotation is left.

    batch = 1   one ciphertext    x0 x1 x2 x3 … x783 · · x0 x1 …        (period 1024, repeated)
    batch = 2   one ciphertext    x0a x0b x1a x1b …                     (records a and b)
    batch = N/2 784 ciphertexts   x0a x0b x0c …  |  x1a x1b x1c …  |  …

A layout is *clean* when every slot outside the features' own holds zero or a copy of a
feature (the content repeats with ``period``); a layout that is not clean has sums of products
there, and whatever reads it must multiply them by zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from he_infer.errors import PackingError

IntArray: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """How a (C, H, W) tensor was placed: slot = c · block + y · row + x · column."""

    block: int
    row: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """``positions[i]`` = ciphertext · slots + feature slot of feature i.

    ``slots``: feature slots per ciphertext. ``period``: the content of each ciphertext repeats
    with it; a power of two, equal to ``slots`` if there are several ciphertexts.
    ``spread``: each feature fills that many blocks of ``stride`` slots in a row (client only).
    """

    name: str
    slots: int
    period: int
    ciphertexts: int
    positions: IntArray
    clean: bool = True
    spread: int = 1
    stride: int = 1
    grid: Grid | None = None

    def __post_init__(self) -> None:
        if self.period > self.slots or self.slots % self.period:
            raise PackingError(f"period {self.period} does not divide {self.slots} slots")
        if self.ciphertexts > 1 and self.period != self.slots:
            raise PackingError("several ciphertexts do not repeat their content")
        if len(self.positions) and int(self.positions.max()) >= self.ciphertexts * self.slots:
            raise PackingError("a feature lies outside the ciphertexts")

    def key(self) -> tuple[object, ...]:
        """Equal keys mean interchangeable layouts."""
        return (
            self.slots,
            self.period,
            self.ciphertexts,
            self.clean,
            self.spread,
            self.stride,
            self.positions.tobytes(),
        )


def power_of_two(size: int) -> int:
    """The smallest power of two that is at least ``size``."""
    return 1 << max(0, math.ceil(math.log2(size)))


def dense_layout(size: int, slots: int, *, name: str = "dense") -> Layout:
    """Features one after another; several ciphertexts if they do not fit one."""
    fits = size <= slots
    return Layout(
        name=name,
        slots=slots,
        period=power_of_two(size) if fits else slots,
        ciphertexts=1 if fits else -(-size // slots),
        positions=np.arange(size),
    )


def grid_layout(shape: tuple[int, int, int], grid: Grid, slots: int, *, name: str) -> Layout | None:
    """A (C, H, W) tensor on a grid; None if one channel's block exceeds the slots."""
    channels, height, width = shape
    if grid.block > slots or (height - 1) * grid.row + (width - 1) * grid.column >= grid.block:
        return None
    per_ciphertext = slots // grid.block
    c, y, x = np.meshgrid(np.arange(channels), np.arange(height), np.arange(width), indexing="ij")
    inside = (c % per_ciphertext) * grid.block + y * grid.row + x * grid.column
    positions = (c // per_ciphertext) * slots + inside
    count = -(-channels // per_ciphertext)
    period = slots if count > 1 else power_of_two(channels) * grid.block
    return Layout(
        name=name,
        slots=slots,
        period=period,
        ciphertexts=count,
        positions=positions.reshape(-1),
        grid=grid,
    )


def spread_layout(size: int, slots: int, *, block: int = 1, name: str) -> Layout | None:
    """``size`` blocks of features, each repeated in a row until the ciphertext is full.

    With block = 1 and 4 features in 16 slots:  x0 x0 x0 x0 x1 x1 x1 x1 x2 x2 x2 x2 x3 x3 x3 x3.
    Reading it takes a quarter of the rotations, because slots of one output class see other
    features. ``positions`` point to each block's first slot.
    """
    copies = slots // (power_of_two(size) * block)
    if copies < 2:
        return None
    index = np.arange(size * block)
    positions = (index // block) * copies * block + index % block
    return Layout(
        name=name,
        slots=slots,
        period=slots,
        ciphertexts=1,
        positions=positions,
        spread=copies,
        stride=block,
    )
