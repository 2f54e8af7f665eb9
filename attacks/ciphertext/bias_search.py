"""A secret vector, looked for among many numbers, and what the same search finds by luck.

    any order     each secret value against the nearest of all numbers
    in place      the secret against the numbers at the places of the logits, moved by any shift
    over records  the same, with each feature slot averaged over the records of the batch

Thousands of numbers lie near anything, so an error says nothing alone. The yardstick is the
search for decoys: the secret's own values with random signs, each stretched or shrunk a little.
Where nothing leaks the secret is an ordinary decoy, whatever its distribution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from attacks.ciphertext.channel import Channel, Floats, logit_places

_DECOYS: Final = 2000
_STRETCH: Final = 0.25  # standard deviation of a decoy value's log size
_LEAST: Final = 1e-15  # of the largest secret value: an exact match must have a logarithm


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Of the search that does best against its decoys; ``p_value`` corrected for their number."""

    error: float
    chance: float
    p_value: float


def search(
    channel: Channel,
    means: Floats,
    searched: NDArray[np.bool_],
    secret: Floats,
    rng: np.random.Generator,
) -> Found:
    """Look for ``secret`` (n_outputs,) in ``means`` (outputs, slots) where ``searched`` is set."""
    if not searched.any():
        return Found(error=math.inf, chance=math.inf, p_value=1.0)
    stretch = np.exp(rng.normal(0.0, _STRETCH, (_DECOYS, len(secret))))
    signs = rng.choice([-1.0, 1.0], (_DECOYS, len(secret)))
    wanted = np.concatenate([secret[None], secret * signs * stretch])
    found = []
    for errors in _errors(channel, means, searched, wanted):
        as_good = int(np.sum(errors[1:] <= errors[0]))
        found.append((((1 + as_good) / (1 + _DECOYS)), errors[0], float(np.median(errors[1:]))))
    # Of two searches that no decoy matched, the one further below its chance.
    p_value, error, chance = min(found, key=lambda one: (one[0], one[1] / one[2]))
    return Found(error=float(error), chance=chance, p_value=min(1.0, len(found) * p_value))


def _errors(
    channel: Channel, means: Floats, searched: NDArray[np.bool_], wanted: Floats
) -> Iterator[Floats]:
    """For each search, the errors (count,) of ``wanted`` (count, n_outputs)."""
    yield _any_order(means[searched], wanted)
    places = logit_places(channel)[0]
    ciphertext, slot = places // channel.slots, places % channel.slots
    yield from _in_place(means, searched, ciphertext, slot, wanted)
    if channel.batch > 1:
        by_feature = (channel.outputs, channel.slots // channel.batch, channel.batch)
        counts = searched.reshape(by_feature).sum(axis=2)
        sums = np.where(searched, means, 0.0).reshape(by_feature).sum(axis=2)
        averaged = sums / np.maximum(counts, 1)
        yield from _in_place(averaged, counts > 0, ciphertext, slot // channel.batch, wanted)


def _any_order(numbers: Floats, wanted: Floats) -> Floats:
    """Geometric mean over the values: one value found exactly shows among ten that are not."""
    ordered = np.concatenate([[-np.inf], np.sort(numbers), [np.inf]])
    after = np.searchsorted(ordered[1:-1], wanted) + 1
    nearest = np.minimum(np.abs(ordered[after] - wanted), np.abs(wanted - ordered[after - 1]))
    least = _LEAST * float(np.abs(wanted[0]).max())
    result: Floats = np.exp(np.mean(np.log(np.maximum(nearest, least)), axis=1))
    return result


def _in_place(
    means: Floats,
    searched: NDArray[np.bool_],
    ciphertext: NDArray[np.int64],
    slot: NDArray[np.int64],
    wanted: Floats,
) -> Iterator[Floats]:
    """Root mean square at the best shift of the logits' places that stays on searched slots."""
    outputs, slots = means.shape
    rows = (np.arange(outputs)[:, None, None] + ciphertext) % outputs
    columns = (np.arange(slots)[None, :, None] + slot) % slots
    inside = searched[rows, columns].all(axis=2)
    if not inside.any():
        return
    windows = means[rows, columns][inside]
    # In parts: shifts times decoys may be tens of millions.
    parts = [cdist(windows, part).min(axis=0) for part in np.array_split(wanted, 20)]
    yield np.concatenate(parts) / math.sqrt(wanted.shape[1])
