"""A matrix between two layouts becomes diagonals, rotation steps and folds.

An entry M[j, i] needs feature i, at slot p, to meet output j, at slot q: the input rotated
left by k = p − q holds it there. All entries with the same k share one rotation and one
plaintext, a *generalised diagonal* (Halevi–Shoup). Three things make the k few:

*Folding.* If the output's period P is shorter than the input's, the sums may first be spread
over all slots ≡ q mod P and then folded by rotations of P, 2P, …; k is only needed mod P:

    in   a b c d e f g h     M is 2 × 8, P = 2: diagonals k = 0, 1 instead of 0 … 7,
    out  y0 y1 y0 y1 …       then rotate-and-add by 2 and 4; the result fills every slot.

*Lanes.* If the input repeats R times, lane r = 0 … R−1 takes the diagonals k = r·δ … (r+1)·δ−1
and is folded back by rotations of (period + δ)·2^t: fewer diagonals, but sums of products
stay behind outside the output's slots, so the layout is not clean.

*Spread inputs.* The client can repeat each feature in a row (layout.py), with the same effect
and a clean result.

Diagonals are then split into baby and giant steps, k = b + g. Baby steps are taken from the
input directly, because rotations of one ciphertext share work; giant steps run as a chain, so
that an arithmetic progression of them needs one Galois key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy import sparse

from he_infer.plan import ir
from he_infer.plan.layout import IntArray, Layout


@dataclass(frozen=True, kw_only=True)
class Entries:
    """The non-zero weights by where they act, all arrays of equal length.

    ``target``, ``source``: ciphertexts; ``offset``: k; ``slot``: where the product lands before
    the giant step; ``value``: the weight. ``period``: of the diagonals. ``folds``: rotation
    steps, in feature slots, that finish the sum.
    """

    target: IntArray
    source: IntArray
    offset: IntArray
    slot: IntArray
    value: ir.FloatArray
    period: int
    folds: tuple[int, ...]
    targets: int
    sources: int

    @cached_property
    def distinct(self) -> IntArray:
        """Distinct (target, source, offset) rows: one plaintext product each."""
        return unique_rows(self.target, self.source, self.offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How offsets become baby + giant: ``modulus`` and whether babies are centred on 0."""

    modulus: int
    centred: bool

    def apply(self, offset: IntArray) -> tuple[IntArray, IntArray]:
        """(baby, giant) of each offset; baby + giant = offset."""
        half = self.modulus // 2 if self.centred else 0
        baby = (offset + half) % self.modulus - half
        return baby, offset - baby


@dataclass(frozen=True, kw_only=True)
class Diagonals:
    """One source's share of an Affine, ready to be evaluated; steps count feature slots.

    ``terms[t]`` = (target ciphertext, source ciphertext, baby, giant) of ``values[t]``, a
    diagonal of ``period`` slots to be repeated to the full length.
    """

    terms: tuple[tuple[int, int, int, int], ...]
    values: ir.FloatArray  # (terms, period)
    period: int
    folds: tuple[int, ...]
    targets: int

    @property
    def babies(self) -> tuple[int, ...]:
        return tuple(sorted({baby for _, _, baby, _ in self.terms} | {0}))

    @property
    def giants(self) -> tuple[int, ...]:
        return tuple(sorted({giant for *_, giant in self.terms} | {0}))

    @property
    def steps(self) -> set[int]:
        """Rotation steps whose Galois keys are needed, in feature slots (may be negative)."""
        return {*self.babies, *walk_steps(self.giants), *self.folds} - {0}


def walk_steps(offsets: Sequence[int]) -> set[int]:
    """Steps that walk from the last of sorted offsets, which are not negative, down to 0."""
    return {b - a for a, b in pairwise(sorted({0, *offsets}))}


def unique_rows(*columns: IntArray) -> IntArray:
    """Distinct rows of the table with these columns, in lexicographic order."""
    return unique_rows_index(*columns)[0]


def unique_rows_index(*columns: IntArray) -> tuple[IntArray, IntArray]:
    """Distinct rows, and which of them each row is; one integer a row sorts fastest."""
    lows = [int(column.min(initial=0)) for column in columns]
    highs = [int(column.max(initial=0)) for column in columns]
    sizes = [high - low + 1 for high, low in zip(highs, lows, strict=True)]
    code = np.zeros(len(columns[0]), dtype=np.int64)
    for column, low, size in zip(columns, lows, sizes, strict=True):
        code = code * size + (column - low)
    distinct, index = np.unique(code, return_inverse=True)
    rows = []
    for low, size in zip(reversed(lows), reversed(sizes), strict=True):
        distinct, digit = np.divmod(distinct, size)
        rows.append(digit + low)
    return np.stack(rows[::-1], axis=1), index.reshape(-1)


def lane_counts(source: Layout, target_period: int) -> list[int]:
    """Numbers of lanes that fit without overlapping; always includes 1."""
    counts = [1]
    if not source.clean or source.ciphertexts > 1 or target_period > source.period:
        return counts
    lanes = 2
    while lanes <= target_period:
        width = source.period + target_period // lanes
        if (lanes - 1) * width + source.period > source.slots:
            break
        counts.append(lanes)
        lanes *= 2
    return counts


def entries(matrix: ir.Matrix, source: Layout, target: Layout, *, lanes: int = 1) -> Entries:
    """Place every non-zero weight; ``matrix`` is (target features, source features)."""
    coo = sparse.coo_array(matrix)
    row, column = coo.coords
    value = coo.data
    idle = np.setdiff1d(np.arange(target.ciphertexts), target.positions[row] // target.slots)
    if len(idle):
        # A ciphertext that no weight reaches still needs a product: a weight of zero.
        first = [np.flatnonzero(target.positions // target.slots == c)[0] for c in idle]
        row = np.concatenate([row, first])
        column = np.concatenate([column, np.zeros(len(idle), dtype=column.dtype)])
        value = np.concatenate([value, np.zeros(len(idle))])
    to, q = np.divmod(target.positions[row], target.slots)
    frm, p = np.divmod(source.positions[column], source.slots)
    if source.spread > 1:
        p = p + (q // source.stride) % source.spread * source.stride
    # A layout that is not clean is read as one period of all slots; so is a dirty result.
    out_period = target.period if lanes == 1 else _period_before_lanes(target)
    window = min(source.period, out_period)
    offset = (p - q) % window
    slot = q if out_period >= source.period else (p - offset) % source.period
    period = max(source.period, out_period)
    folds = _doubling(out_period, source.period)
    if lanes > 1:
        width = window // lanes
        lane, offset = np.divmod(offset, width)
        slot = slot + lane * (source.period + width)
        period = source.slots
        folds = tuple((source.period + width) << t for t in range(lanes.bit_length() - 1)) + folds
    return Entries(
        target=to,
        source=frm,
        offset=offset,
        slot=slot,
        value=value,
        period=period,
        folds=folds,
        targets=target.ciphertexts,
        sources=source.ciphertexts,
    )


def dirty(layout: Layout) -> Layout:
    """The layout that a laned product leaves: the same positions, no repetition, not clean."""
    return Layout(
        name=f"{layout.name}+lanes",
        slots=layout.slots,
        period=layout.slots,
        ciphertexts=1,
        positions=layout.positions,
        clean=False,
        grid=layout.grid,
    )


def _period_before_lanes(target: Layout) -> int:
    return 1 << int(target.positions.max()).bit_length()


def _doubling(start: int, stop: int) -> tuple[int, ...]:
    steps = []
    while start < stop:
        steps.append(start)
        start *= 2
    return tuple(steps)


def diagonals(found: Entries, split: Split) -> Diagonals:
    """Gather the weights into plaintext diagonals, each shifted by its own giant step."""
    baby, giant = split.apply(found.offset)
    terms, index = unique_rows_index(found.target, found.source, baby, giant)
    values = np.zeros((len(terms), found.period))
    # The giant step comes after the product and moves slot s + g to s.
    np.add.at(values, (index, (found.slot + giant) % found.period), found.value)
    return Diagonals(
        terms=tuple((int(t), int(s), int(b), int(g)) for t, s, b, g in terms),
        values=values,
        period=found.period,
        folds=found.folds,
        targets=found.targets,
    )


def repeats(period: int, slots: int) -> bool:
    """Whether values of this period, in slots, encode to runs of eight or more equal words."""
    return 8 * period <= slots


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How one source of an Affine is multiplied: lanes and the baby/giant split."""

    lanes: int
    split: Split


@dataclass(frozen=True, kw_only=True)
class InputPacking:
    """``gather[v]`` = input feature at virtual feature v (−1: zero); ``layout`` places those.

    ``first_matrix`` replaces the first layer's matrix on virtual features.
    """

    layout: Layout
    gather: IntArray
    first_matrix: ir.Matrix | None = None


@dataclass(frozen=True, kw_only=True)
class Packing:
    """The planner's result: layouts by node, choices by (affine, source), and why."""

    input: InputPacking
    layouts: Mapping[str, Layout]
    choices: Mapping[tuple[str, str], Choice]
    predicted_ms: float
    considered: tuple[str, ...]
