"""What a plan's nodes become once their layouts are known: the steps that a server evaluates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from he_infer.plan.ir import FloatArray
from he_infer.plan.packing import Diagonals


@dataclass(frozen=True, kw_only=True)
class AffineStep:
    """y = Σ parts · x + bias, from ``level`` to ``level − 1``, at exactly ``scale``.

    ``parts[i]`` reads ``sources[i]``; ``bias``: (ciphertexts, feature slots).
    """

    name: str
    sources: tuple[str, ...]
    parts: tuple[Diagonals, ...]
    bias: FloatArray
    level: int
    scale: float


@dataclass(frozen=True, kw_only=True)
class SquareStep:
    """``rescales``: at once; otherwise the next Affine's rescale divides for both products.

    ``relinearizes``: at once; otherwise after the next sums, which are fewer.
    """

    name: str
    sources: tuple[str, ...]
    rescales: bool
    relinearizes: bool


@dataclass(frozen=True, kw_only=True)
class PolynomialStep:
    """Chebyshev coefficients by slot: (degree + 1, ciphertexts, feature slots)."""

    name: str
    sources: tuple[str, ...]
    coefficients: FloatArray
    level: int  # of the result
    scale: float


Step: TypeAlias = AffineStep | SquareStep | PolynomialStep
