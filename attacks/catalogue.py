"""Every attack by name: what it is, where it comes from, what it needs, and how to make one.

Each family describes its attacks beside their code. Making one imports it, so that listing them
stays quick.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from attacks.core.entry import EVASION, EXTRACTION, MEMBERSHIP, CatalogueEntry
from attacks.errors import AuditError
from attacks.evasion.entries import EVASIONS
from attacks.extraction.entries import EXTRACTIONS
from attacks.membership.entries import MEMBERSHIPS

ATTACKS: Final[Mapping[str, CatalogueEntry]] = MappingProxyType(
    {**EXTRACTIONS, **MEMBERSHIPS, **EVASIONS}
)
FAMILIES: Final = (EXTRACTION, MEMBERSHIP, EVASION)
CIPHERTEXT: Final = "ciphertext"  # see attacks.ciphertext.suite
POISONING: Final = "poisoning"  # see attacks.audit.sections.poisoning
REMEDIES: Final = "remedies"  # see attacks.audit.sections.remedies
SUITES: Final = (CIPHERTEXT, POISONING, REMEDIES)


def choose(wanted: Sequence[str]) -> tuple[str, ...]:
    """The catalogue's names for "all", a family or names, in its order, each once.

    Raises AuditError, with the nearest name, for one that it does not have.
    """
    chosen: set[str] = set()
    for word in wanted:
        if word in SUITES:
            continue  # sections of their own, not rows of the catalogue
        if word == "all":
            chosen |= ATTACKS.keys()
        elif word in FAMILIES:
            chosen |= {name for name, entry in ATTACKS.items() if entry.family == word}
        elif word in ATTACKS:
            chosen.add(word)
        else:
            near = difflib.get_close_matches(word, (*ATTACKS, *FAMILIES, *SUITES, "all"), n=1)
            hint = f": did you mean {near[0]!r}?" if near else ": `he-infer attacks` lists them"
            raise AuditError(f"no attack is called {word!r}{hint}")
    return tuple(name for name in ATTACKS if name in chosen)
