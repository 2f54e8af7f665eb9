"""Which evaluation keys a plan needs, and up to which level each of them is used.

A key that is only used at level l needs the digits 0 … l, and of each the residues modulo
q_0 … q_l and P: the rest is cut off before it is sent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from he_infer.errors import WireError
from he_infer.params import CKKSParams


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLevels:
    """The highest level at which each evaluation key is used.

    ``public``: of the public key. ``relin``: of the relinearisation key, or None if no product
    needs one. ``rotations``: (left step, level) in ascending order of steps; step 0 is the
    conjugation.
    """

    public: int
    relin: int | None
    rotations: tuple[tuple[int, int], ...]

    @classmethod
    def full(cls, params: CKKSParams, steps: Sequence[int]) -> Self:
        """Uncut keys for steps in any order, left or (negative) right; raises WireError."""
        top = params.max_level
        rotations = tuple((step, top) for step in canonical_steps(steps, params))
        return cls(public=top, relin=top, rotations=rotations)

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(step for step, _ in self.rotations)

    @property
    def switches(self) -> tuple[int, ...]:
        """Levels of the key-switching keys as they are sent: relinearisation, then rotations."""
        levels = tuple(level for _, level in self.rotations)
        return levels if self.relin is None else (self.relin, *levels)

    @property
    def digest(self) -> str:
        """SHA-256 in hexadecimal over the JSON form."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def check(self, params: CKKSParams) -> None:
        """Raise WireError unless steps and levels exist under ``params``."""
        if canonical_steps(self.steps, params) != self.steps:
            raise WireError("rotation steps must be distinct, ascending and not negative")
        for level in (self.public, *self.switches):
            if not 0 <= level <= params.max_level:
                raise WireError(f"level {level} is outside 0…{params.max_level}")

    def covers(self, other: KeyLevels) -> bool:
        """Whether these keys can do all that ``other`` lists."""
        mine = dict(self.rotations)
        return (
            self.public >= other.public
            and (other.relin is None or (self.relin is not None and self.relin >= other.relin))
            and all(mine.get(step, -1) >= level for step, level in other.rotations)
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "public": self.public,
            "relin": self.relin,
            "rotations": [list(pair) for pair in self.rotations],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote; raises WireError for anything else."""
        try:
            public, relin, rotations = data["public"], data["relin"], data["rotations"]
            pairs = tuple((step, level) for step, level in rotations)
        except (KeyError, TypeError, ValueError) as error:
            raise WireError("not a list of key levels") from error
        numbers = [public, *(n for pair in pairs for n in pair)]
        if relin is not None:
            numbers.append(relin)
        if not all(type(n) is int for n in numbers):
            raise WireError("key levels must be integers")
        return cls(public=public, relin=relin, rotations=pairs)


def canonical_steps(steps: Sequence[int], params: CKKSParams) -> tuple[int, ...]:
    """Distinct left rotations in ascending order; raises WireError for a step out of range.

    Steps are taken modulo the number of slots, except 0, which stands for conjugation.
    """
    for step in steps:
        if not -params.slots < step < params.slots:
            raise WireError(f"rotation by {step} is outside ±{params.slots - 1}")
    return tuple(sorted({int(step) % params.slots for step in steps}))
