"""What a server can do to answers that it cannot read, as wrappers around any oracle.

    logits ──► × r, one factor a record ──► + t, one number a record ──► + noise ──► the client
               keeps the label               keeps the label             may change it

A server under encryption sees no query, so it cannot round, answer labels only or give the
same noise to the same question twice. What is left is what it can do to every record alike, with
fresh randomness each time. Each wrapper here draws what a compiled plan with the options beside
it draws, without any encryption, so that attacks can be studied in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attacks.core.oracle import Oracle
from attacks.core.wrappers import Noisy, Scaled, Shifted
from attacks.errors import DataSplitError, TooFewRecordsError

SPREAD: Final = 2.0  # factors lie in [1/2, 2]
NOISE_STD: Final = 0.5
SHIFT: Final = 8.0

Wrap = Callable[[Oracle, np.random.Generator], Oracle]

_DRAWS: Final = 64  # of the noise, to tell what it costs
_HALVINGS: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingDefence:
    """One way to serve, or several at once.

    ``keeps_labels``: every answer still has the label of the exact logits. ``wrap``: the same
    defence around an oracle in the clear; its randomness comes from the generator. ``options``:
    of ``he-infer compile`` that make a plan which does it. ``cost``: what it takes, in words.
    ``adaptive``: names in the catalogue of the attacks that know of it.
    """

    name: str
    title: str
    keeps_labels: bool
    wrap: Wrap
    options: tuple[str, ...]
    cost: str
    adaptive: tuple[str, ...]


def serving_defences(
    *, noise_std: float = NOISE_STD, spread: float = SPREAD, shift: float = SHIFT
) -> Mapping[str, ServingDefence]:
    """Every defence and combination by name, at these strengths.

    ``noise_std`` and ``shift`` are in units of the logits; ``calibrated_noise`` finds the noise
    that costs a given accuracy. Raises DataSplitError, when an oracle is wrapped, for strengths
    that make no sense.
    """
    scaling = ("--scaling", f"{spread:g}")
    shifting = ("--shift", f"{shift:g}")
    noise = ("--noise-std", f"{noise_std:g}")

    def scaled(oracle: Oracle, rng: np.random.Generator) -> Oracle:
        return Scaled(oracle, spread=spread, rng=rng)

    def shifted(oracle: Oracle, rng: np.random.Generator) -> Oracle:
        return Shifted(oracle, radius=shift, rng=rng)

    def noisy(oracle: Oracle, rng: np.random.Generator) -> Oracle:
        return Noisy(oracle, scale=noise_std, rng=rng)

    def both(oracle: Oracle, rng: np.random.Generator) -> Oracle:
        return shifted(scaled(oracle, rng), rng)

    one_product = "no level; 10 to 15 bits of the first prime, and one product with a plaintext"
    one_sum = "no level; room for the shift in the first prime"
    error = "no level; the accuracy that the noise takes"
    found = (
        ServingDefence(
            name="scaling",
            title="Random positive scaling of each record's logits",
            keeps_labels=True,
            wrap=scaled,
            options=scaling,
            cost=one_product,
            adaptive=("ratio-extraction", "network-matching", "adaptive-retraining"),
        ),
        ServingDefence(
            name="shift",
            title="Random common shift of each record's logits",
            keeps_labels=True,
            wrap=shifted,
            options=shifting,
            cost=one_sum,
            adaptive=("ratio-extraction", "network-matching", "adaptive-retraining"),
        ),
        ServingDefence(
            name="noise",
            title="Gaussian noise on the logits",
            keeps_labels=False,
            wrap=noisy,
            options=noise,
            cost=error,
            adaptive=("quadratic-extraction", "network-matching"),
        ),
        ServingDefence(
            name="scaling+shift",
            title="Scaling and shift",
            keeps_labels=True,
            wrap=both,
            options=(*scaling, *shifting),
            cost=one_product,
            adaptive=("ratio-extraction", "network-matching", "adaptive-retraining"),
        ),
        ServingDefence(
            name="scaling+noise",
            title="Scaling, then noise",
            keeps_labels=False,
            wrap=lambda oracle, rng: noisy(scaled(oracle, rng), rng),
            options=(*scaling, *noise),
            cost=f"{one_product}; the accuracy that the noise takes",
            adaptive=("ratio-extraction", "network-matching"),
        ),
        ServingDefence(
            name="shift+noise",
            title="Shift, then noise",
            keeps_labels=False,
            wrap=lambda oracle, rng: noisy(shifted(oracle, rng), rng),
            options=(*shifting, *noise),
            cost=f"{one_sum}; the accuracy that the noise takes",
            adaptive=("ratio-extraction", "network-matching"),
        ),
        ServingDefence(
            name="scaling+shift+noise",
            title="Scaling, shift, then noise",
            keeps_labels=False,
            wrap=lambda oracle, rng: noisy(both(oracle, rng), rng),
            options=(*scaling, *shifting, *noise),
            cost=f"{one_product}; the accuracy that the noise takes",
            adaptive=("ratio-extraction", "network-matching"),
        ),
    )
    return MappingProxyType({defence.name: defence for defence in found})


SERVING: Final = serving_defences()


def calibrated_noise(
    logits: NDArray[np.float64],
    truth: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    accuracy_lost: float = 0.01,
    spread: float = 1.0,
) -> float:
    """The largest noise that costs at most ``accuracy_lost`` of the accuracy, in logit units.

    ``logits`` (B, classes) of records whose labels ``truth`` (B,) are known; use records that the
    model was not trained on. ``spread``: of the scaling before the noise, 1 for none. The mean
    over 64 draws of noise is compared, and the same draws are used at every strength, so that
    the loss grows with it. Raises TooFewRecordsError for no records, DataSplitError for a share
    outside (0, 1).
    """
    if len(logits) == 0 or len(logits) != len(truth):
        raise TooFewRecordsError(
            f"noise is calibrated on labelled records, got {len(logits)} and {len(truth)}", needed=1
        )
    if not 0 < accuracy_lost < 1:
        raise DataSplitError(f"the accuracy to lose lies in 0 … 1, got {accuracy_lost}")
    drawn = rng.normal(size=(_DRAWS, *logits.shape))
    factors = spread ** rng.uniform(-1, 1, (_DRAWS, len(logits), 1))
    before = float(np.mean(logits.argmax(axis=1) == truth))

    def lost(std: float) -> float:
        answers = (logits * factors + std * drawn).argmax(axis=2)  # (draws, B)
        return before - float(np.mean(answers == truth))

    low, high = 0.0, float(np.abs(logits).max()) or 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if lost(middle) <= accuracy_lost else (low, middle)
    return low
