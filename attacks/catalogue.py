"""Every attack by name: what it is, where it comes from, what it needs, and how to make one.

Making one imports it, so that listing them stays quick.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol

import numpy as np

from attacks.errors import AuditError
from attacks.oracle import LABELS, LOGITS, PROBABILITIES, Oracle, OracleInfo
from attacks.result import AttackResult

EXTRACTION: Final = "extraction"
MEMBERSHIP: Final = "membership"
FAMILIES: Final = (EXTRACTION, MEMBERSHIP)
MALICIOUS_CLIENT: Final = "malicious client"


class Attack(Protocol):
    """``data`` is ExtractionData or MembershipData, by the family that the catalogue states."""

    def run(self, oracle: Oracle, data: Any, rng: np.random.Generator) -> AttackResult: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What an attack may use: ``budget`` records of the target described by ``info``;
    ``seeds`` labelled records and ``pool`` unlabelled ones of its own."""

    budget: int
    info: OracleInfo
    seeds: int
    pool: int


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


SCORES: Final = (LOGITS, PROBABILITIES)
ANYTHING: Final = (LABELS,)


def choose(wanted: Sequence[str]) -> tuple[str, ...]:
    """The catalogue's names for "all", a family or names, in its order, each once.

    Raises AuditError, with the nearest name, for one that it does not have.
    """
    chosen: set[str] = set()
    for word in wanted:
        if word == "all":
            chosen |= ATTACKS.keys()
        elif word in FAMILIES:
            chosen |= {name for name, entry in ATTACKS.items() if entry.family == word}
        elif word in ATTACKS:
            chosen.add(word)
        else:
            near = difflib.get_close_matches(word, (*ATTACKS, *FAMILIES, "all"), n=1)
            hint = f": did you mean {near[0]!r}?" if near else ": `he-infer attacks` lists them"
            raise AuditError(f"no attack is called {word!r}{hint}")
    return tuple(name for name in ATTACKS if name in chosen)


def _quadratic(allowance: Allowance) -> Attack:
    from attacks.extraction.quadratic import QuadraticExtraction

    return QuadraticExtraction(queries=allowance.budget)


ATTACKS: Final[Mapping[str, CatalogueEntry]] = MappingProxyType(
    {
        "quadratic-extraction": CatalogueEntry(
            title="Exact extraction of a network with one layer of squares",
            family=EXTRACTION,
            reference="Usevich et al. 2025; Fornasier et al. 2019",
            needs=SCORES,
            build=_quadratic,
        ),
    }
)
