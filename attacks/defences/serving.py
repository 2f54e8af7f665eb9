"""What a server can do to answers that it cannot read, as wrappers around any oracle.

    logits ──► × r, one factor a record ──► + t, one number a record ──► + noise ──► the client
               keeps the label               keeps the label             may change it

A server under encryption sees no query. It can neither round nor answer labels only, and it cannot
give the same noise to the same question twice. It can only do the same to every record, with fresh
randomness each time. A wrapper draws what a compiled plan with the same strengths draws, without
any encryption, so that attacks can be studied in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from attacks.core.arrays import Floats, Ints
from attacks.core.oracle import Oracle
from attacks.core.wrappers import Noisy, Scaled, Shifted
from attacks.errors import DataSplitError, TooFewRecordsError

SPREAD: Final = 2.0  # factors lie in [1/2, 2]
NOISE_STD: Final = 0.5
SHIFT: Final = 8.0

_DRAWS: Final = 64  # of the noise, to tell what it costs
_HALVINGS: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """One thing that a server does to logits.

    ``field``: the field of the compiler's ``FunctionPrivacy`` that holds the strength. ``wrap``:
    the same in the clear, from an oracle, the strength and a generator. ``cost``: what it takes
    beside accuracy.
    """

    field: str
    wrap: Callable[[Oracle, float, np.random.Generator], Oracle]
    cost: str
    keeps_labels: bool = True


# In the order in which a plan applies them.
_CHANGES: Final[Mapping[str, _Change]] = {
    "scaling": _Change(
        field="scaling",
        wrap=lambda oracle, strength, rng: Scaled(oracle, spread=strength, rng=rng),
        cost="no level; 10 to 15 bits of the first prime, and one product with a plaintext",
    ),
    "shift": _Change(
        field="shift",
        wrap=lambda oracle, strength, rng: Shifted(oracle, radius=strength, rng=rng),
        cost="no level; room for the shift in the first prime",
    ),
    "noise": _Change(
        field="noise_std",
        wrap=lambda oracle, strength, rng: Noisy(oracle, scale=strength, rng=rng),
        cost="no level",
        keeps_labels=False,
    ),
}
_BY_RATIOS: Final = ("ratio-extraction", "network-matching")
_BY_RATIOS_OR_LABELS: Final = (*_BY_RATIOS, "adaptive-retraining")
# Every defence: its title, and the names in the catalogue of the attacks that know of it.
_DEFENCES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "scaling": ("Random positive scaling of each record's logits", _BY_RATIOS_OR_LABELS),
    "shift": ("Random common shift of each record's logits", _BY_RATIOS_OR_LABELS),
    "noise": ("Gaussian noise on the logits", ("quadratic-extraction", "network-matching")),
    "scaling+shift": ("Scaling and shift", _BY_RATIOS_OR_LABELS),
    "scaling+noise": ("Scaling, then noise", _BY_RATIOS),
    "shift+noise": ("Shift, then noise", _BY_RATIOS),
    "scaling+shift+noise": ("Scaling, shift, then noise", _BY_RATIOS),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingDefence:
    """One way to serve, or several at once.

    ``privacy``: the strengths, by the name of the field of the compiler's ``FunctionPrivacy`` that
    makes a plan with this defence. ``adaptive``: names in the catalogue of the attacks that know
    of it.
    """

    name: str
    title: str
    privacy: Mapping[str, float]
    adaptive: tuple[str, ...]

    @property
    def _changes(self) -> list[_Change]:
        return [change for change in _CHANGES.values() if change.field in self.privacy]

    @property
    def keeps_labels(self) -> bool:
        """Whether every answer still has the label of the exact logits."""
        return all(change.keeps_labels for change in self._changes)

    @property
    def cost(self) -> str:
        """What the defence takes, in words; of two demands on the first prime, the larger one."""
        accuracy = "" if self.keeps_labels else "; the accuracy that the noise takes"
        return self._changes[0].cost + accuracy

    @property
    def options(self) -> tuple[str, ...]:
        """The options of ``he-infer compile`` that make a plan with this defence."""
        named = ((f"--{field.replace('_', '-')}", f"{v:g}") for field, v in self.privacy.items())
        return tuple(word for option in named for word in option)

    def wrap(self, oracle: Oracle, rng: np.random.Generator) -> Oracle:
        """The same defence around an oracle in the clear, with randomness from ``rng``.

        Raises DataSplitError for strengths that make no sense.
        """
        for change in self._changes:
            oracle = change.wrap(oracle, self.privacy[change.field], rng)
        return oracle


def serving_defences(
    *, noise_std: float = NOISE_STD, spread: float = SPREAD, shift: float = SHIFT
) -> Mapping[str, ServingDefence]:
    """Every defence and combination by name, at these strengths.

    ``noise_std`` and ``shift`` are in units of the logits; ``calibrated_noise`` finds the noise
    that costs a given accuracy.
    """
    strengths = {"scaling": spread, "shift": shift, "noise": noise_std}
    return MappingProxyType(
        {
            name: ServingDefence(
                name=name,
                title=title,
                privacy={_CHANGES[part].field: strengths[part] for part in name.split("+")},
                adaptive=adaptive,
            )
            for name, (title, adaptive) in _DEFENCES.items()
        }
    )


def calibrated_noise(
    logits: Floats,
    truth: Ints,
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
