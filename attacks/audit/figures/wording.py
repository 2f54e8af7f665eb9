"""Figures and names as the sentences of findings have them."""

from __future__ import annotations

from attacks.audit.document.records import AttackRecord
from attacks.core.intervals import Estimate


def percent(estimate: Estimate) -> str:
    """97.3% [96.0%, 98.2%]."""
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"


def requests(count: int) -> str:
    return "one request" if count == 1 else f"{count:,} requests"


def sentence(text: str) -> str:
    """``text`` with a capital letter and a full stop."""
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def within(attack: AttackRecord) -> str:
    """The attack's full title in the middle of a sentence."""
    return f"{attack.title.lower()}{attack.full_title.removeprefix(attack.title)}"
