"""Extraction by fitting a network with one layer of squares to the answers.

    f(z) = A (W z + b)² + c,      min over W, b, A, c of  Σ ‖y − r·f(z) − t·1‖²

where r and t are the best factor and shift for each record, within what the adversary assumes.
Least squares over all coefficients has (d+1)(d+2)/2 unknowns a class. This fit has
h·(d + 1 + C) + C in all, so it needs a fifth of the records and averages noise better in the same
proportion. Its search
can end in a local minimum, so several starts are tried on the first records and the best goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attacks.core.arrays import Floats
from attacks.core.intervals import exact
from attacks.core.oracle import Oracle, OracleInfo
from attacks.core.result import AttackResult
from attacks.errors import DataSplitError
from attacks.extraction.exact.concealed import SLACK, Concealment, contrasts
from attacks.extraction.exact.quadratic_forms import Centering, check_asking, ternary_design
from attacks.extraction.learners import minimise
from attacks.extraction.outcome import ExtractionAttempt
from attacks.extraction.setting import ExtractionData

Indices = NDArray[np.int64]

_SOLVED: Final = 1e-16  # of the answers' power: what is left is rounding
_SEARCH_RECORDS: Final = 2000  # a start is judged on these at most
_TINY: Final = 1e-12
_SIFTINGS: Final = 4  # fits without what overflowed
_OVERFLOWN: Final = 6.0  # times the median error
_NOTICED: Final = 0.02  # of the answers' power: below that nothing is left out


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SquareNetwork:
    """Scores A (W z + b)² + c of centred inputs: ``rows`` W (h, d), ``biases`` b (h,), ``outputs``
    A (classes, h), ``constants`` c (classes,)."""

    rows: Floats
    biases: Floats
    outputs: Floats
    constants: Floats
    centering: Centering

    def scores(self, inputs: Floats) -> Floats:
        """(B, *input_shape) → (B, classes)."""
        return self.at(self.centering.centered(inputs))

    def at(self, z: Floats) -> Floats:
        """Scores (B, classes) of centred inputs (B, d)."""
        result: Floats = (z @ self.rows.T + self.biases) ** 2 @ self.outputs.T + self.constants
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkMatching:
    """Match a network of ``channels`` squares to ``queries`` answers.

    ``concealment``: what is supposed to have been done to them. ``starts``: of the search, each
    ``iterations`` long, as is the last fit to all records. ``narrow``: every other record keeps to
    the middle of the interval, 1/narrow as wide: an adversary who leaves the range of sensible
    inputs drowns noise on the squares, and needs records inside it for the constants, on which
    the noise is the same however large a query is. Needs logits or probabilities.
    """

    queries: int
    channels: int = 32
    concealment: Concealment = field(
        default_factory=lambda: Concealment(scaled=False, shifted=False)
    )
    starts: int = 3
    iterations: int = 2000
    held_out: int = 32
    narrow: float = 1.0
    records_per_request: int | None = None

    def __post_init__(self) -> None:
        check_asking(self.held_out, self.records_per_request)
        if min(self.channels, self.starts, self.iterations) < 1:
            raise DataSplitError(
                "matching needs a channel, a start and an iteration, got "
                f"{self.channels}, {self.starts} and {self.iterations}"
            )
        if not 1 <= self.narrow < float("inf"):
            raise DataSplitError(f"narrow is finite and 1 or more, got {self.narrow}")

    def minimum_queries(self, info: OracleInfo) -> int:
        """A half more than unknowns over numbers told by a record, and the held-out ones."""
        told = self.concealment.told(info.classes)
        return math.ceil(1.5 * self.unknowns(info) / told) + self.held_out

    def unknowns(self, info: OracleInfo) -> int:
        return self.channels * (info.features + 1 + info.classes) + info.classes

    def run(self, oracle: Oracle, data: ExtractionData, rng: np.random.Generator) -> AttackResult:
        """Query once, search, judge; ``artifact`` is a SquareNetwork.

        Raises BudgetError below ``minimum_queries``, AbilityError if only labels come back.
        """
        info = oracle.info
        attempt = ExtractionAttempt.start("network-matching", self, oracle, data, needs_scores=True)
        centering = Centering.of(info)
        z = ternary_design(self.queries, 0, info.features, rng)
        z[::2] /= self.narrow
        scores = centering.ask(oracle, z, self.records_per_request)
        network, error = self.steal(z, scores, centering, rng)
        return attempt.finish(
            network,
            rng,
            has_logits=False,
            extra={"held_out_error": exact(error, count=self.held_out)},
        )

    def steal(
        self, z: Floats, scores: Floats, centering: Centering, rng: np.random.Generator
    ) -> tuple[SquareNetwork, float]:
        """Centred queries (B, d) and scores (B, classes), the last held out → the network, and its
        error on the held-out relative to what is seen there."""
        classes = scores.shape[1]
        seen = self.concealment.coordinates(scores)
        unit = float(np.sqrt(np.mean(seen**2))) or 1.0
        known, fresh = slice(0, len(z) - self.held_out), slice(len(z) - self.held_out, None)
        shapes = [(self.channels, z.shape[1]), (self.channels,), (classes, self.channels)]
        sizes = [math.prod(shape) for shape in shapes]

        def network(theta: Tensor) -> tuple[Tensor, ...]:
            parts = torch.split(theta, [*sizes, classes])
            return (*[p.reshape(s) for p, s in zip(parts, shapes, strict=False)], parts[-1])

        def fit(start: Floats, part: Indices, iterations: int) -> tuple[Floats, float]:
            inputs, wanted = torch.from_numpy(z[part]), torch.from_numpy(seen[part] / unit)
            loss = _loss(self.concealment, wanted)

            def objective(theta: Tensor) -> Tensor:
                return loss(_scores(network(theta), inputs))

            return minimise(objective, start, iterations, ftol=1e-13, gtol=1e-10)

        def search(kept: Indices, first: Floats | None = None) -> Floats:
            """The best of several starts, and of ``first``, fitted to all that is kept."""
            part = kept[:_SEARCH_RECORDS]
            best = None if first is None else fit(first, part, self.iterations)
            for _ in range(self.starts):
                if best is not None and best[1] < _SOLVED:
                    break
                start = np.concatenate(
                    [
                        rng.normal(size=sizes[0]) / math.sqrt(z.shape[1]),
                        0.3 * rng.normal(size=sizes[1]),
                        0.3 * rng.normal(size=sizes[2]),
                        np.zeros(classes),
                    ]
                )
                found = fit(start, part, self.iterations)
                if best is None or found[1] < best[1]:
                    best = found
            assert best is not None
            return best[0] if len(part) == len(kept) else fit(best[0], kept, self.iterations)[0]

        kept = np.arange(known.stop)
        theta = search(kept)
        for sifting in range(_SIFTINGS):
            with torch.no_grad():
                scores_of = _scores(network(torch.from_numpy(theta)), torch.from_numpy(z[known]))
            predicted = self.concealment.coordinates(scores_of.numpy() * unit)
            sound = self._sound(predicted, seen[known])
            if np.array_equal(sound, kept):
                break
            kept = sound
            # What overflowed may have led every start into a minimum of its own.
            theta = search(kept, theta) if sifting == 0 else fit(theta, kept, self.iterations)[0]
        rows, biases, outputs, constants = (p.numpy() for p in network(torch.from_numpy(theta)))
        stolen = SquareNetwork(
            rows=rows,
            biases=biases,
            outputs=outputs * unit,
            constants=constants * unit,
            centering=centering,
        )
        predicted = self.concealment.coordinates(stolen.at(z[fresh]))
        error = self.concealment.misfit(predicted, seen[fresh])
        return stolen, error / float(np.sqrt(np.mean(seen[fresh] ** 2)))

    def _sound(self, predicted: Floats, seen: Floats) -> Indices:
        """Indices of the records whose answers are what they should be, as far as can be seen.

        Asked far out of range, an encrypted answer overflows its modulus now and then, and is off
        by more than all that noise does to the others.
        """
        factors = self.concealment.factors(predicted, seen)
        errors = np.sqrt(np.mean((seen - factors * predicted) ** 2, axis=1))
        most = max(
            _OVERFLOWN * float(np.median(errors)), _NOTICED * float(np.sqrt(np.mean(seen**2)))
        )
        return np.flatnonzero(errors <= most)


def _scores(network: tuple[Tensor, ...], z: Tensor) -> Tensor:
    rows, biases, outputs, constants = network
    return torch.addmm(constants, torch.addmm(biases, z, rows.T) ** 2, outputs.T)


def _loss(concealment: Concealment, wanted: Tensor) -> Callable[[Tensor], Tensor]:
    """Mean square of what no factor and no shift explains; ``wanted`` (B, K) coordinates."""
    columns = None
    if concealment.shifted:
        columns = torch.from_numpy(contrasts(wanted.shape[1] + 1))

    def loss(scores: Tensor) -> Tensor:
        predicted = scores if columns is None else scores @ columns
        if concealment.scaled:
            power = (predicted**2).sum(dim=1).clamp_min(_TINY)
            factors = (predicted * wanted).sum(dim=1) / power
            most = SLACK * concealment.spread
            factors = factors.clamp(1 / most, most)
            predicted = factors[:, None] * predicted
        return ((wanted - predicted) ** 2).mean()

    return loss
