"""One claim: what it says, what must be reached, what was, and whether that is enough."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """``holds`` None: this machine lacks what the test needs, which ``figure`` names."""

    name: str
    bar: str
    figure: str
    holds: bool | None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "holds": None if self.holds is None else bool(self.holds)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long the tests take; ``quick`` is what a minute or two allows."""

    quick: bool

    def of(self, full: int, quick: int) -> int:
        return quick if self.quick else full
