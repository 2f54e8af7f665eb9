"""One line of the catalogue: what an attack is, what it needs, and how to make it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from attacks.core.oracle import LABELS, LOGITS, PROBABILITIES, Oracle, OracleInfo
from attacks.core.result import AttackResult

EXTRACTION: Final = "extraction"
MEMBERSHIP: Final = "membership"
EVASION: Final = "evasion"
MALICIOUS_CLIENT: Final = "malicious client"
# Who was given the weights, or stole them exactly.
WEIGHT_HOLDER: Final = "holder of the weights"
SCORES: Final = (LOGITS, PROBABILITIES)
ANYTHING: Final = (LABELS,)


class Attack(Protocol):
    """``data`` is ExtractionData, MembershipData or EvasionData, by the family that the catalogue
    states."""

    def run(self, oracle: Oracle, data: Any, rng: np.random.Generator) -> AttackResult: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What an attack may use: ``budget`` records of the target described by ``info``, about
    whose training ``candidates`` records are in question; ``population`` records of its own;
    ``moved`` records that evasion moves."""

    budget: int
    info: OracleInfo
    candidates: int
    population: int
    moved: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """``needs``: what an answer has to carry, any one of these. ``build`` makes the attack for
    an allowance and may raise BudgetError, which says the least budget."""

    title: str
    family: str
    reference: str
    needs: tuple[str, ...]
    build: Callable[[Allowance], Attack]
    threat_model: str = MALICIOUS_CLIENT

    @property
    def needs_text(self) -> str:
        return " or ".join(self.needs)

    def to_json(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "title": self.title,
            "family": self.family,
            "reference": self.reference,
            "threat_model": self.threat_model,
            "needs": self.needs_text,
        }
