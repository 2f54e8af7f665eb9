"""One line of the catalogue: what an attack is, what it needs, and how to make it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol

import numpy as np

from attacks.core.oracle import LABELS, LOGITS, PROBABILITIES, Oracle, OracleInfo
from attacks.core.result import AttackResult
from attacks.core.threat import ThreatModel

EXTRACTION: Final = "extraction"
MEMBERSHIP: Final = "membership"
EVASION: Final = "evasion"
SCORES: Final = (LOGITS, PROBABILITIES)
ANYTHING: Final = (LABELS,)


class Attack(Protocol):
    """``data`` is ExtractionData, MembershipData or EvasionData, by the family that the catalogue
    states."""

    def run(self, oracle: Oracle, data: Any, rng: np.random.Generator) -> AttackResult: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What an attack may use.

    ``budget``: records of the target described by ``info`` that it may ask about.
    ``candidates``: records whose membership in the training set is in question.
    ``population``: records that the adversary has. ``moved``: records that evasion moves.
    """

    budget: int
    info: OracleInfo
    candidates: int
    population: int
    moved: int = 1


# Makes an attack for an allowance. May raise BudgetError, which says the least budget.
Build = Callable[[Allowance], Attack]


@dataclass(frozen=True, slots=True)
class Imported:
    """Makes the attack ``name`` of ``module`` with these ``options``.

    The module is imported when the attack is made, so that listing all attacks stays quick.
    ``asks``: whether the attack takes the budget as its number of ``queries``.
    """

    module: str
    name: str
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    asks: bool = False

    def __call__(self, allowance: Allowance) -> Attack:
        options = dict(self.options)
        if self.asks:
            options["queries"] = allowance.budget
        attack: Attack = getattr(importlib.import_module(self.module), self.name)(**options)
        return attack


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """``needs``: what an answer has to carry, any one of these. ``build`` makes the attack.

    ``published``: the name under which the literature knows it, if it has one of its own.
    """

    title: str
    family: str
    reference: str
    build: Build
    published: str | None = None
    needs: tuple[str, ...] = ANYTHING
    threat_model: ThreatModel = ThreatModel.MALICIOUS_CLIENT

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
