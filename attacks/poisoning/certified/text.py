"""Made-up bags of words, for where no text is at hand.

Sentiment data are easy to poison because of their form. They have thousands of rare features, each
of which carries little. Records lie far from their class's centroid, compared with how far the
centroids lie apart. The generator has that form, and no other property of a language:

    frequency of word k        f_k ∝ (stop_words + k + 2.7)^−1  (Zipf and Mandelbrot)
    topic                      f_k · exp(± strength · z_k / 2),  z_k normal, drawn once
    length of a document       log-normal around ``words``
    document                   multinomial counts of its topic's words
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import sparse

from attacks.core.arrays import Floats
from attacks.errors import DataSplitError
from attacks.poisoning.certified.binary import BinarySet

_MANDELBROT: Final = 2.7


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoTopics:
    """``vocabulary`` words, the ``stop_words`` most frequent ones of the language left out;
    documents of ``words`` words in the median, spread by a factor exp(``spread``).
    ``strength``: standard deviation of a word's log-odds between the topics.

    With 10,000 documents the defaults give a linear learner about the test error that it has on
    IMDB's reviews. Raises DataSplitError unless all are positive and there are two words.
    """

    vocabulary: int = 5000
    stop_words: int = 5
    words: float = 230.0
    spread: float = 0.5
    strength: float = 0.2

    def __post_init__(self) -> None:
        if (
            min(self.vocabulary - 1, self.stop_words + 1) < 1
            or not min(self.words, self.spread, self.strength) > 0
        ):
            raise DataSplitError(
                "two topics need two words, and a positive length, spread and strength; got "
                f"{self.vocabulary}, {self.words}, {self.spread} and {self.strength}"
            )

    def draw(self, *counts: int, rng: np.random.Generator) -> tuple[BinarySet, ...]:
        """For every count a set of so many documents, half of either topic, of one language."""
        base = 1.0 / (np.arange(self.vocabulary) + 1 + self.stop_words + _MANDELBROT)
        tilt = self.strength * rng.normal(size=self.vocabulary) / 2
        topics = [base * np.exp(sign * tilt) for sign in (-1.0, 1.0)]
        chances = [each / each.sum() for each in topics]
        return tuple(self._documents(count, chances, rng) for count in counts)

    def _documents(self, count: int, chances: list[Floats], rng: np.random.Generator) -> BinarySet:
        if count < 2:
            raise DataSplitError(f"a set of two topics has at least two documents, got {count}")
        labels = np.arange(count) % 2
        lengths = np.exp(rng.normal(np.log(self.words), self.spread, count))
        words = np.maximum(1, np.round(lengths)).astype(np.int64)
        document = np.repeat(np.arange(count), words)
        drawn = rng.random(len(document))
        column = np.empty(len(document), dtype=np.int64)
        for label, chance in enumerate(chances):
            here = labels[document] == label
            # The last edge is 1 up to rounding, and a draw may lie beyond it.
            found = np.searchsorted(np.cumsum(chance), drawn[here], side="right")
            column[here] = np.minimum(found, self.vocabulary - 1)
        ones = np.ones(len(document))
        inputs = sparse.csr_array(
            sparse.coo_array((ones, (document, column)), shape=(count, self.vocabulary))
        )
        inputs.sum_duplicates()
        return BinarySet(inputs=inputs, signs=np.where(labels == 1, 1.0, -1.0))
