"""Where every value lives in the modulus chain.

A value's *level* is the index of the highest data prime it still has. An Affine takes one
level, a polynomial of degree d takes ceil(log2(d + 1)). Values are produced as late in the
chain as their inputs allow, and the output lands exactly on level 0.

A Square rescales in one of two ways. *Eagerly*: at once, which takes a level of its own.
*Lazily*: it keeps the squared scale, and the rescale of the next Affine divides by one prime
that is wide enough for both products (EVA's waterline, Dathathri et al. 2020).

Plaintexts are encoded so that an Affine's output has precisely the scale asked for, whatever
prime the rescale drops. Only the scale of an eager Square drifts, by Δ/q, and the next Affine
brings it back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from he_infer.errors import CompileError, DepthError
from he_infer.params import CKKSParams
from he_infer.plan import ir


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Level and scale of one node's value."""

    level: int
    scale: float


def polynomial_depth(degree: int) -> int:
    """Levels that evaluating a polynomial of this degree takes, coefficients included."""
    return math.ceil(math.log2(degree + 1))


def depth_of(node: ir.Node, *, lazy: bool) -> int:
    """Levels a node consumes."""
    match node:
        case ir.Input():
            return 0
        case ir.Affine():
            return 1
        case ir.Square():
            return 0 if lazy else 1
        case ir.Polynomial():
            return polynomial_depth(node.degree)
        case ir.Activation():
            raise CompileError(f"{node.name} ({node.label}) is not a polynomial yet")


def depths(graph: ir.Graph, *, lazy: bool) -> dict[str, int]:
    """Levels consumed from the input to each node, along its deepest path."""
    total: dict[str, int] = {}
    for node in graph:
        before = max((total[source] for source in node.sources), default=0)
        total[node.name] = before + depth_of(node, lazy=lazy)
    return total


def place(
    graph: ir.Graph, params: CKKSParams, *, lazy: bool, scale: float, output_scale: float
) -> dict[str, Placement]:
    """Level and scale of every node's value; the input is fresh, the output at level 0.

    ``lazy``: how squares rescale. Raises DepthError if the chain is not exactly as long as the
    graph is deep.
    """
    depth = depths(graph, lazy=lazy)
    needed = depth[graph.output.name]
    if params.max_level != needed:
        raise DepthError(
            f"the graph needs {needed} levels, the parameters have {params.max_level}: add or "
            "remove data primes"
        )
    placed: dict[str, Placement] = {}
    for node in graph:
        level = params.max_level - depth[node.name]
        node_scale = scale
        if isinstance(node, ir.Square):
            before = placed[node.source].scale
            node_scale = before * before
            if not lazy:
                node_scale /= params.primes[level + 1]
        if node.name == graph.output.name:
            node_scale = output_scale
        placed[node.name] = Placement(level=level, scale=node_scale)
    return placed
