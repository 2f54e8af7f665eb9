"""The modulus chain of a graph: parameters and scales, derived from depth and precision.

Squares rescale *eagerly* or *lazily* (``plan.placement``). A lazy chain has the same bits in
fewer primes, so fewer transforms, and key switches act on values of a large scale. Primes of at
most 50 bits are the fastest ones, which leaves lazy chains 27 bits of scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from he_infer.errors import DepthError, ParameterError
from he_infer.params import MAX_LOG_QP, MAX_PRIME_BITS, CKKSParams
from he_infer.plan import ir
from he_infer.plan.placement import depths, polynomial_depth

# Room in the first prime above an output of the largest magnitude seen: sign, the conjugate that
# is added to a reply, and outliers.
HEADROOM_BITS: Final = 4
MIN_OUTPUT_BITS: Final = 12
# How far the special prime exceeds the first: SEAL's digits are not centred, so the noise of
# a key switch is a thousand roundings in the slots whose root of unity is near 1.
SPECIAL_BITS: Final = 3
# log2 of the outputs' noise in units of 1/scale at N = 4096: a rounding adds about 2^9, and
# folds, which come after the rescale, add up hundreds of them. Each doubling of N adds a bit.
NOISE_BITS: Final = 14
# The same for lazy chains, where sums are folded before the rescale: roundings alone.
LAZY_NOISE_BITS: Final = 15
LAZY_BITS: Final = 50  # the widest primes of a lazy chain, and its special prime
# log2 of the scale of a lazy chain's weights. Their rounding moves a slot by about 2^(5 − 23),
# as much as the rounding of a rescale does at the 27 bits of scale that 50 leave.
PLAIN_BITS: Final = 23
FINER_BITS: Final = 4
MIN_LAZY_BITS: Final = 20
UNSCALED_BITS: Final = 10  # above the scale, in a chain that is one prime
# More bits of scale than needed by this many only make keys larger.
SPARE_BITS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ModulusChain:
    """Parameters, log2 of the scale of the query and of intermediate values, and how squares
    rescale: ``lazy`` with the next Affine, otherwise at once."""

    params: CKKSParams
    scale_bits: int
    lazy: bool


def choose_chains(
    graph: ir.Graph, *, precision_bits: int, output_bits: int, least_n: int = 4096
) -> list[ModulusChain]:
    """The candidates for a graph: lazy where it fits 50-bit primes, and eager.

    Raises DepthError if neither fits.
    """
    lazy = choose_lazy(
        graph, precision_bits=precision_bits, output_bits=output_bits, least_n=least_n
    )
    found = [] if lazy is None else [lazy]
    try:
        depth = depths(graph, lazy=False)[graph.output.name]
        params, bits = choose_params(
            depth, precision_bits=precision_bits, output_bits=output_bits, least_n=least_n
        )
        found.append(ModulusChain(params=params, scale_bits=bits, lazy=False))
    except DepthError:
        if not found:
            raise
    return found


def choose_lazy(
    graph: ir.Graph, *, precision_bits: int, output_bits: int, least_n: int
) -> ModulusChain | None:
    """The smallest ring that holds a lazy chain, with the largest scale; None if none does."""
    if not any(isinstance(node, ir.Square) for node in graph):
        return None  # nothing to be lazy about
    for n in MAX_LOG_QP:
        least = precision_bits + LAZY_NOISE_BITS + int(math.log2(n)) - 12
        for bits in range(LAZY_BITS - PLAIN_BITS, least - 1, -1):
            first = bits + _headroom(output_bits)
            widths = _lazy_widths(graph, bits)
            total = first + sum(widths) + LAZY_BITS
            if n < least_n or first > LAZY_BITS or total > MAX_LOG_QP[n][128]:
                continue
            # Room to spare makes the weights finer that meet no square; it lengthens queries too.
            finer = min(FINER_BITS, (MAX_LOG_QP[n][128] - total) // 10)
            widths = [w + finer if w == PLAIN_BITS else w for w in widths]
            try:
                params = CKKSParams.from_bits(n, [first, *widths], special_bits=LAZY_BITS)
            except ParameterError:
                continue
            return ModulusChain(params=params, scale_bits=bits, lazy=True)
    return None


def _lazy_widths(graph: ir.Graph, bits: int) -> list[int]:
    """Bits of the primes q_1 … q_L of a lazy chain with this scale.

    An Affine's rescale divides by its weights' scale, and by a scale more where a Square is read.
    """
    depth = depths(graph, lazy=True)
    top = depth[graph.output.name]
    widths = [0] * top
    for node in graph:
        # A node's levels are consumed by the primes from number top − depth + 1 on.
        lowest = top - depth[node.name]
        if isinstance(node, ir.Affine):
            squares = any(isinstance(graph[source], ir.Square) for source in node.sources)
            wanted = bits + PLAIN_BITS if squares else PLAIN_BITS
            widths[lowest] = max(widths[lowest], wanted)
        elif isinstance(node, ir.Polynomial):
            for level in range(lowest, lowest + polynomial_depth(node.degree)):
                widths[level] = max(widths[level], bits)
    return widths


def choose_params(
    depth: int, *, precision_bits: int, output_bits: int, least_n: int = 4096
) -> tuple[CKKSParams, int]:
    """The smallest N that offers ``depth`` levels at 128-bit security, and log2 of its scale.

    ``precision_bits``: bits after the binary point wanted in the outputs.
    ``output_bits``: log2 of the outputs' largest magnitude.
    Raises DepthError naming the largest depth that fits.
    """
    for n in MAX_LOG_QP:
        if n < least_n:
            continue
        most, least = (
            scale_bits_for(n, depth, output_bits=output_bits),
            least_scale_bits(n, precision_bits),
        )
        if most >= least:
            bits = min(most, least + SPARE_BITS)
            return _params(n, depth, bits, output_bits=output_bits), bits
    # A larger ring has more noise, so where precision is scarce the largest is not the deepest.
    fits_at = {
        _budget(n, output_bits) // least_scale_bits(n, precision_bits) - 2: n
        for n in MAX_LOG_QP
        if n >= least_n
        and scale_bits_for(n, 0, output_bits=output_bits) >= least_scale_bits(n, precision_bits)
    }
    fits = max(fits_at, default=-1)
    if fits < 0:
        raise DepthError(
            f"cannot keep {precision_bits} bits of precision in outputs of {output_bits} bits at "
            f"any depth: primes have at most {MAX_PRIME_BITS} bits; lower precision_bits"
        )
    n = fits_at[fits]
    raise DepthError(
        f"cannot fit depth {depth} at {precision_bits} bits of precision and 128-bit security: "
        f"the most is depth {fits} at N = {n}; lower the polynomial degree, the number of "
        "layers or precision_bits"
    )


def scale_bits_for(n: int, depth: int, *, output_bits: int) -> int:
    """The largest log2(scale) for which depth + 2 primes stay within 128-bit security.

    The chain is [s + h, s × depth, s + h + SPECIAL_BITS], h bits of headroom for the outputs.
    """
    headroom = _headroom(output_bits)
    return min(_budget(n, output_bits) // (depth + 2), MAX_PRIME_BITS - headroom - SPECIAL_BITS)


def least_scale_bits(n: int, precision_bits: int) -> int:
    """log2 of the scale at which noise leaves this many bits after the binary point."""
    return precision_bits + NOISE_BITS + int(math.log2(n)) - 12


def _budget(n: int, output_bits: int) -> int:
    return MAX_LOG_QP[n][128] - 2 * _headroom(output_bits) - SPECIAL_BITS


def _headroom(output_bits: int) -> int:
    return max(output_bits, 1) + HEADROOM_BITS


def _params(n: int, depth: int, scale_bits: int, *, output_bits: int) -> CKKSParams:
    first = scale_bits + _headroom(output_bits)
    # What is left of the budget goes to the special prime, within reason.
    left = MAX_LOG_QP[n][128] - first - depth * scale_bits
    special = min(left, first + SPECIAL_BITS + 7, MAX_PRIME_BITS)
    try:
        return CKKSParams.from_bits(n, [first, *[scale_bits] * depth], special_bits=special)
    except ParameterError as error:
        raise DepthError(f"no suitable primes for N = {n}, depth {depth}: {error}") from error


def output_scale_of(params: CKKSParams, output_range: float, scale: float) -> float:
    """The outputs' scale: the query's, or less where the first prime could not hold them.

    Raises ParameterError if fewer than MIN_OUTPUT_BITS would be left of it.
    """
    most = math.floor(math.log2(params.primes[0] / output_range)) - HEADROOM_BITS
    if most < MIN_OUTPUT_BITS:
        raise ParameterError(
            f"outputs up to {output_range:.3g} leave {most} bits of scale in a first prime of "
            f"{params.primes[0].bit_length()} bits: make that prime wider"
        )
    return min(scale, 2.0**most)


def chain_of(graph: ir.Graph, params: CKKSParams) -> ModulusChain:
    """The chain of parameters that the caller chose: their number of primes says how squares
    rescale, and their sizes the scale.

    Raises DepthError for a chain of any other length than the two that fit.
    """
    lazy, eager = (depths(graph, lazy=lazy)[graph.output.name] for lazy in (True, False))
    if params.max_level == eager:
        bits = min((q.bit_length() for q in params.primes[1:]), default=0)
        bits = bits or params.primes[0].bit_length() - UNSCALED_BITS
        return ModulusChain(params=params, scale_bits=bits, lazy=False)
    bits = _lazy_scale_bits(graph, params) if params.max_level == lazy else 0
    if bits < MIN_LAZY_BITS:
        # A chain of the lazy length whose primes are too narrow can only be made longer.
        fitting = sorted({lazy, eager} - {params.max_level})
        raise DepthError(
            f"the graph needs {' or '.join(map(str, fitting))} levels, the parameters have "
            f"{params.max_level}: add or remove data primes"
        )
    return ModulusChain(params=params, scale_bits=bits, lazy=True)


def _lazy_scale_bits(graph: ir.Graph, params: CKKSParams) -> int:
    """The scale for which these primes, as many as a lazy chain has, are wide enough; or 0."""
    primes = [q.bit_length() for q in params.primes[1:]]
    best = 0
    for bits in range(MIN_LAZY_BITS, LAZY_BITS):
        widths = _lazy_widths(graph, bits)
        if len(widths) == len(primes) and all(
            have >= width for have, width in zip(primes, widths, strict=True)
        ):
            best = bits
    return best
