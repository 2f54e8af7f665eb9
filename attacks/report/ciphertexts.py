"""The report's section on attacks on ciphertexts: where nothing defends, and as served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attacks.report.markup import Markup, join, tag
from attacks.report.tables import head_row, table

_INTRO = (
    "Each attack runs on this network twice: compiled without any defence, which shows that the "
    "attack works, and as it is served. Both with real keys and real ciphertexts."
)


def ciphertext_section(audit: Mapping[str, Any]) -> Markup | None:
    """None for an audit without these attacks."""
    checks = audit.get("ciphertext")
    if not checks:
        return None
    head = head_row("attack", "without defences", "as served", "", "what is left")
    rows = [
        tag(
            "tr",
            {},
            tag(
                "th",
                {"scope": "row"},
                check["title"],
                tag("span", {"class": "source"}, f"{check['threat_model']}; {check['reference']}"),
            ),
            tag("td", {}, check["control"]),
            tag("td", {}, check["defended"]),
            tag("td", {"class": None if check["holds"] else "differs"}, _verdict(check)),
            tag("td", {"class": "soft"}, check["residual"]),
        )
        for check in checks
    ]
    return join([tag("p", {"class": "soft"}, _INTRO), table("Attacks on ciphertexts", head, rows)])


def _verdict(check: Mapping[str, Any]) -> str:
    if check["control_broken"] is False:
        return "void"
    if check["control_broken"] is None:
        return "measured"
    return "holds" if check["holds"] else "broken"
