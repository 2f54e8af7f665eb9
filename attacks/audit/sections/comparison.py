"""What encryption, and the polynomials that it needs, changed about all attacks together.

medium  the polynomial twin leaks more than the ReLU original, beyond an interval
low     what encryption changed, and which attacks say nothing about the encrypted service
ok      the polynomial twin leaks no more than the ReLU original
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from attacks.audit.document.records import (
    DONE,
    FAILED,
    AttackRecord,
    AuditRecord,
    Finding,
    PairedDifference,
    PooledTrial,
)
from attacks.audit.section import Section
from attacks.core.entry import EXTRACTION, MEMBERSHIP
from attacks.oracles.twins import ENCRYPTED, POLYNOMIAL, RELU

Change = tuple[AttackRecord, PairedDifference]


def _findings(record: AuditRecord) -> Iterator[Finding]:
    # A suite of its own says itself what encryption changed.
    if record.attacks or not (record.ciphertext or record.poisoning or record.remedies):
        yield _encryption(record)
    for family, more, less, what in (
        (EXTRACTION, "easier to steal", "harder to steal", "to steal"),
        (
            MEMBERSHIP,
            "more telling about its members",
            "less telling about its members",
            "about its training set",
        ),
    ):
        pairs = _changes(record, RELU, POLYNOMIAL, family)
        if pairs:
            yield _replacement(pairs, more, less, what)
    trials = [(a, a.cells[ENCRYPTED]) for a in record.attacks if ENCRYPTED in a.cells]
    missing = [(attack, trial) for attack, trial in trials if trial.status != DONE]
    if missing:
        yield _silent(missing, len(record.attacks))


def _changes(record: AuditRecord, before: str, after: str, family: str = "") -> list[Change]:
    return [
        (attack, change)
        for attack in record.attacks
        if family in ("", attack.family)
        for change in attack.paired
        if (change.before, change.after) == (before, after)
    ]


def _encryption(record: AuditRecord) -> Finding:
    """What changed from the polynomial network in the clear to the encrypted service."""
    pairs = _changes(record, POLYNOMIAL, ENCRYPTED)
    if not pairs:
        return Finding(
            severity="low",
            title="Nothing says what encryption changed",
            text="No attack ran both on the polynomial network in the clear and on the encrypted "
            "service.",
        )
    changed = [(attack, change) for attack, change in pairs if change.significant]
    compared = f"{len(pairs)} figures of {len({attack.name for attack, _ in pairs})} attacks"
    if not changed:
        # Of each attack the figure that has least room: others of few targets say nothing.
        rooms: dict[str, float] = {}
        for attack, change in pairs:
            room = max(-change.difference.low, change.difference.high)
            rooms[attack.name] = min(room, rooms.get(attack.name, math.inf))
        return Finding(
            severity="low",
            title="Encryption changed nothing measurable about what clients learn",
            text=f"Of {compared}, none differs measurably between the polynomial network in the "
            f"clear and the encrypted service. For every attack there is a figure whose interval "
            f"leaves room for a change of {max(rooms.values()):.3g} at most.",
            advice="Encryption protects the client's data from the server. Protect the model from "
            "its clients as if it were not encrypted.",
        )
    return Finding(
        severity="low",
        title="Encryption changed some figures",
        text=f"Of {compared}, {len(changed)} changed beyond the interval between the polynomial "
        f"network in the clear and the encrypted service (about {0.05 * len(pairs):.1f} would "
        f"differ by chance alone): {_listed(changed)}.",
    )


def _replacement(pairs: list[Change], more: str, less: str, what: str) -> Finding:
    """What the replacement of ReLUs by polynomials changed about one family."""
    worse = [pair for pair in pairs if pair[1].difference.low > 0]
    better = [pair for pair in pairs if pair[1].difference.high < 0]
    if worse:
        return Finding(
            severity="medium",
            title=f"The polynomial twin is {more} than the ReLU original",
            text=f"{len(worse)} of {len(pairs)} figures rose beyond their intervals when "
            f"ReLUs were replaced, {len(better)} fell. {_listed(worse)}.",
            advice="This comes with the activations that encryption needs, not with "
            "encryption; weigh it when choosing the architecture.",
        )
    if better:
        return Finding(
            severity="ok",
            title=f"The polynomial twin is {less} than the ReLU original",
            text=f"{len(better)} of {len(pairs)} figures fell beyond their intervals when "
            f"ReLUs were replaced, none rose. {_listed(better)}.",
        )
    return Finding(
        severity="ok",
        title=f"Replacing ReLUs by polynomials changed nothing measurable {what}",
        text=f"No figure changed beyond its interval ({len(pairs)} compared).",
    )


def _silent(missing: list[tuple[AttackRecord, PooledTrial]], attacks: int) -> Finding:
    """Which attacks did not run on the encrypted service, and why."""
    reasons = "; ".join(
        f"{attack.full_title}{' failed' if trial.status == FAILED else ''}: {trial.reason}"
        for attack, trial in missing
    )
    return Finding(
        severity="low",
        title=f"{len(missing)} of {attacks} attacks say nothing about the encrypted service",
        text=f"{reasons}.",
        advice="An attack that did not run is no evidence of safety.",
    )


def _listed(changes: list[Change]) -> str:
    """The first four of them."""
    return "; ".join(
        f"{attack.full_title}: {change.metric.replace('_', ' ')} {change.difference.value:+.3g} "
        f"[{change.difference.low:+.3g}, {change.difference.high:+.3g}]"
        for attack, change in changes[:4]
    )


SECTION: Final = Section(findings=_findings)
