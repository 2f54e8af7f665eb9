"""Chooses a layout for every tensor by predicted milliseconds: a beam search over the graph.

For each Affine the candidates are the dense layout (features in a row), the grid of the layer
before with strides left as gaps, and a compact grid; each with the numbers of lanes that fit.
For the input they are, besides those, the client-side unrolling of the first layer and
repeated features. The cheapest chain wins; ties go to the candidate listed first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from he_infer.compiler.im2col import unroll
from he_infer.compiler.splits import best_split
from he_infer.errors import PackingError
from he_infer.params import CKKSParams
from he_infer.plan import ir
from he_infer.plan.layout import (
    Grid,
    Layout,
    dense_layout,
    grid_layout,
    power_of_two,
    spread_layout,
)
from he_infer.plan.packing import Choice, InputPacking, Packing, dirty, entries, lane_counts
from he_infer.plan.placement import Placement
from he_infer.runtime.costs import CostModel

BEAM: Final = 8
MAX_INPUT_CIPHERTEXTS: Final = 2  # that client-side unrolling may use, for one feature slot run
MAX_LANE_DEGREE: Final = 3  # (2 · 16)^3 is 15 bits, which two primes always have to spare
# Uploading a ciphertext costs the client and the network about this much.
UPLOAD_MS: Final = 15.0


def plan_packing(
    graph: ir.Graph,
    placed: Mapping[str, Placement],
    params: CKKSParams,
    *,
    batch: int,
    cost: CostModel,
    spills: bool = False,
) -> Packing:
    """Choose layouts for ``batch`` records per query; raises PackingError if nothing fits.

    ``spills`` lets the last layer leave partial sums outside the reply.
    """
    slots = params.slots // batch
    beam = [
        _State(
            packing=packing,
            cost=UPLOAD_MS * packing.layout.ciphertexts,
            layouts={graph.input.name: packing.layout},
            choices={},
        )
        for packing in _input_candidates(graph, slots)
    ]
    for node in graph:
        if isinstance(node, ir.Input):
            continue
        grown: list[_State] = []
        for state in beam:
            if isinstance(node, ir.Affine):
                clean = node.name == graph.output.name and not spills
                grown += _place_affine(node, graph, state, placed, params, slots, cost, clean)
            else:
                layout = state.layouts[node.sources[0]]
                price = layout.ciphertexts * _nonlinear_ms(node, placed, params, cost)
                grown.append(state.extended(node.name, layout, price, {}))
        if not grown:
            raise PackingError(f"{node.name} with shape {node.shape} fits no layout")
        grown.sort(key=lambda s: s.cost)
        beam = _distinct(grown)[:BEAM]
    # The reply must hold the outputs and nothing else.
    final = [s for s in beam if s.layouts[graph.output.name].clean]
    if spills:
        final = [s for s in beam if s not in final] or final
    best = final[0]
    return Packing(
        input=best.packing,
        layouts=best.layouts,
        choices=best.choices,
        predicted_ms=best.cost,
        considered=tuple(
            f"{s.cost:.0f} ms: {' → '.join(layout.name for layout in s.layouts.values())}"
            for s in final
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _State:
    packing: InputPacking
    layouts: dict[str, Layout]
    choices: dict[tuple[str, str], Choice]
    cost: float

    def extended(
        self, name: str, layout: Layout, price: float, choices: dict[tuple[str, str], Choice]
    ) -> _State:
        return replace(
            self,
            layouts={**self.layouts, name: layout},
            cost=self.cost + price,
            choices={**self.choices, **choices},
        )


def _distinct(states: list[_State]) -> list[_State]:
    seen: set[tuple[object, ...]] = set()
    kept = []
    for state in states:
        key = tuple(layout.key() for layout in list(state.layouts.values())[-2:])
        if key not in seen:
            seen.add(key)
            kept.append(state)
    return kept


def _nonlinear_ms(
    node: ir.Node, placed: Mapping[str, Placement], params: CKKSParams, cost: CostModel
) -> float:
    level = placed[node.sources[0]].level
    total = cost.square_ms(params.n, level) + cost.key_switch_ms(params.n, level)
    if placed[node.name].level < level:
        total += cost.rescale_ms(params.n, level)
    return total


def _place_affine(
    node: ir.Affine,
    graph: ir.Graph,
    state: _State,
    placed: Mapping[str, Placement],
    params: CKKSParams,
    slots: int,
    cost: CostModel,
    clean: bool,
) -> list[_State]:
    level = placed[node.name].level + 1
    results = []
    for target in _targets(node, state, slots):
        options = [1]
        if len(node.sources) == 1 and not clean and not _feeds_high_degree(node, graph):
            options = lane_counts(state.layouts[node.sources[0]], target.period)
        for lanes in options:
            choices: dict[tuple[str, str], Choice] = {}
            total = 0.0
            for source, matrix in zip(node.sources, node.matrices, strict=True):
                first = state.packing.first_matrix if source == graph.input.name else None
                found = entries(
                    matrix if first is None else first, state.layouts[source], target, lanes=lanes
                )
                split, price = best_split(
                    found, n=params.n, level=level, cost=cost, batch=params.slots // slots
                )
                choices[node.name, source] = Choice(lanes=lanes, split=split)
                total += price
            layout = target if lanes == 1 else dirty(target)
            results.append(state.extended(node.name, layout, total, choices))
    return results


def _feeds_high_degree(node: ir.Affine, graph: ir.Graph) -> bool:
    """Lanes leave sums beyond [−1, 1] in other slots, where a high degree would overflow."""
    return any(
        isinstance(reader, ir.Polynomial) and reader.degree > MAX_LANE_DEGREE
        for reader in graph.consumers(node.name)
    )


def _targets(node: ir.Affine, state: _State, slots: int) -> list[Layout]:
    """Candidate output layouts, without duplicates."""
    found = [dense_layout(ir.features(node), slots)]
    if len(node.shape) == 3:
        channels, height, width = node.shape
        shape = (channels, height, width)
        compact = Grid(block=power_of_two(height * width), row=width, column=1)
        grids = [("grid", compact)]
        for source in node.sources:
            grid = state.layouts[source].grid
            if grid is not None:
                grids.append(("same grid", grid))
                for stride in (2, 3, 4):
                    strided = replace(grid, row=grid.row * stride, column=grid.column * stride)
                    grids.append((f"grid/{stride}", strided))
        for name, grid in grids:
            layout = grid_layout(shape, grid, slots, name=name)
            if layout is not None:
                found.append(layout)
    unique = {layout.key(): layout for layout in reversed(found)}
    return list(unique.values())


def _input_candidates(graph: ir.Graph, slots: int) -> list[InputPacking]:
    size, shape = ir.features(graph.input), graph.input.shape
    everything = np.arange(size)
    found = [InputPacking(layout=dense_layout(size, slots), gather=everything)]
    if len(shape) == 3:
        channels, height, width = shape
        grid = Grid(block=power_of_two(height * width), row=width, column=1)
        layout = grid_layout((channels, height, width), grid, slots, name="grid")
        if layout is not None:
            found.append(InputPacking(layout=layout, gather=everything))
    readers = graph.consumers(graph.input.name)
    if len(readers) != 1 or not isinstance(readers[0], ir.Affine):
        return found
    repeated = spread_layout(size, slots, name="repeated")
    if repeated is not None:
        found.append(InputPacking(layout=repeated, gather=everything))
    return found + _unrolled(readers[0], slots)


def _unrolled(reader: ir.Affine, slots: int) -> list[InputPacking]:
    if len(reader.sources) > 1:
        return []
    result = unroll(reader.matrices[0], reader.shape)
    if result is None:
        return []
    block = power_of_two(result.windows)
    per_ciphertext = slots // block
    if block > slots or result.taps > MAX_INPUT_CIPHERTEXTS * per_ciphertext:
        return []
    tap, window = np.divmod(np.arange(result.taps * result.windows), result.windows)
    ciphertexts = -(-result.taps // per_ciphertext)
    grid = Grid(block=block, row=reader.shape[-1], column=1)
    layout = Layout(
        name="unrolled",
        slots=slots,
        period=slots if ciphertexts > 1 else power_of_two(result.taps) * block,
        ciphertexts=ciphertexts,
        positions=tap // per_ciphertext * slots + tap % per_ciphertext * block + window,
        grid=grid,
    )
    found = [InputPacking(layout=layout, gather=result.gather, first_matrix=result.matrix)]
    repeated = spread_layout(result.taps, slots, block=block, name="unrolled, repeated")
    if repeated is not None and ciphertexts == 1:
        layout = replace(repeated, positions=tap * repeated.spread * block + window, grid=grid)
        found.append(InputPacking(layout=layout, gather=result.gather, first_matrix=result.matrix))
    return found
