"""What an operation costs, from counts of transforms and words and two measured constants.

A key switch at L data primes and one special prime takes L inverse transforms of the input,
L² forward ones of its digits, and 2(L + 2) to divide by the special prime. Everything else is
elementwise. The defaults were measured with SEAL 4.3 on one core of an AMD EPYC; ``he-infer
doctor`` measures them on the machine at hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """``transform_us``: one NTT of length 8192, its share of the inner product included.
    ``word_ns``: one modular multiplication of a 64-bit word.
    ``add_ns``: one modular addition of a 64-bit word.
    """

    transform_us: float = 105.0
    word_ns: float = 4.4
    add_ns: float = 1.0

    def transforms_ms(self, n: int, count: float) -> float:
        return count * self.transform_us / 1e3 * (n * math.log2(n)) / (8192 * 13)

    def key_switch_ms(self, n: int, level: int) -> float:
        primes = level + 1
        return self.transforms_ms(n, primes + primes**2 + 2 * (primes + 2))

    def rescale_ms(self, n: int, level: int, size: int = 2) -> float:
        return self.transforms_ms(n, size * (level + 1))

    def multiply_plain_ms(self, n: int, level: int, size: int = 2) -> float:
        return size * (level + 1) * n * self.word_ns / 1e6

    def square_ms(self, n: int, level: int) -> float:
        return 3 * (level + 1) * n * self.word_ns / 1e6

    def multiply_ms(self, n: int, level: int) -> float:
        return 4 * (level + 1) * n * self.word_ns / 1e6

    def add_ms(self, n: int, level: int, size: int = 2) -> float:
        return size * (level + 1) * n * self.add_ns / 1e6
