"""What an operation costs, from counts of transforms and words and a few measured constants.

With L data primes at hand, the digits of a ciphertext take L inverse and L² forward transforms
and a division by the special prime 2 + 2L for both halves. Everything else reads words once:
of keys 2·L·(L + 1)·N, of plaintexts twice as many as they have. ``he-infer doctor`` measures
the constants on the machine at hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearCounts:
    """What a linear map is made of.

    ``hoisted``: sources that are rotated; ``babies``: rotations of sources; ``giants`` and
    ``folds``: rotations of sums; ``products``: plaintexts, ``full`` of them with a word for
    every coefficient; ``numbers``: products by one number for all slots, in maps that hold
    nothing else; ``targets``: results.
    """

    hoisted: int
    babies: int
    giants: int
    folds: int
    products: int
    full: int
    numbers: int
    targets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """Constants of one way to evaluate; the defaults are those of hoisted rotations on
    an x86 processor with IFMA.

    ``transform_us``: one NTT of length 8192. ``word_ns``: one word of a ciphertext times one of
    a plaintext, added up. ``plain_word_ns``: one word of a plaintext fetched, where it is not
    one for many. ``number_word_ns``: one word times a number, added up. ``key_word_ns``: one
    word of a key fetched, multiplied and added up. ``add_ns``: one word added, lifted or
    permuted. ``ciphertext_ms``: receiving or answering with one of length 8192. ``hoisting``:
    rotations of one ciphertext share its digits and the division by the special prime comes
    after the sums; otherwise every rotation is whole.
    """

    transform_us: float = 19.0
    word_ns: float = 0.55
    plain_word_ns: float = 0.75
    number_word_ns: float = 0.13
    key_word_ns: float = 0.6
    add_ns: float = 0.3
    ciphertext_ms: float = 0.6
    hoisting: bool = True

    def transforms_ms(self, n: int, count: float) -> float:
        return count * self.transform_us / 1e3 * (n * math.log2(n)) / (8192 * 13)

    def key_words_ms(self, n: int, level: int) -> float:
        primes = level + 1
        return 2 * primes * (primes + 1) * n * self.key_word_ns / 1e6

    def digits_ms(self, n: int, level: int) -> float:
        primes = level + 1
        lifted = primes**2 * n * self.add_ns / 1e6
        return self.transforms_ms(n, primes + primes**2) + lifted

    def exchange_ms(self, n: int, ciphertexts: int) -> float:
        """Receiving queries and answering them: seeds expanded, replies re-randomised."""
        return ciphertexts * self.ciphertext_ms * n / 8192

    def key_switch_ms(self, n: int, level: int) -> float:
        divide = self.transforms_ms(n, 2 * (level + 2))
        return self.digits_ms(n, level) + self.key_words_ms(n, level) + divide

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

    def linear_ms(self, n: int, level: int, counts: LinearCounts, *, size: int = 2) -> float:
        """A linear map with its rescale, from ciphertexts at ``level``."""
        if not self.hoisting:
            rotations = counts.babies + counts.giants + counts.folds
            total = rotations * self.key_switch_ms(n, level)
            products = counts.products + counts.numbers
            total += products * self.multiply_plain_ms(n, level, size)
            total += products * self.add_ms(n, level, size)
            total += counts.targets * self.rescale_ms(n, level, 2)
        else:
            rows = level + (2 if counts.babies else 1)
            # Both halves of an extended sum, P's row included: raised, permuted or added.
            extended = 2 * (level + 2) * n * self.add_ns / 1e6
            total = counts.hoisted * self.digits_ms(n, level)
            total += counts.babies * (self.key_words_ms(n, level) + 2 * extended)
            total += counts.products * 2 * rows * n * self.word_ns / 1e6
            total += counts.full * rows * n * self.plain_word_ns / 1e6
            total += counts.numbers * size * (level + 1) * n * self.number_word_ns / 1e6
            rotation = self.transforms_ms(n, level + 2) + self.digits_ms(n, level)
            rotation += self.key_words_ms(n, level) + 3 * extended
            total += (counts.giants + counts.folds) * rotation
            moved = counts.babies + counts.giants + counts.folds
            divided = level + 2 if moved else level + 1
            total += counts.targets * self.transforms_ms(n, 2 * divided)
        if size > 2:
            total += counts.targets * self.key_switch_ms(n, level)
        return total
