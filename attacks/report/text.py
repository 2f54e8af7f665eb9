"""The same audit as a short table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attacks.report.check import check
from attacks.report.numbers import metric_name, value_text

_SHORT: Final = {
    "plaintext-relu": "ReLU",
    "plaintext-polynomial": "polynomial",
    "simulated": "simulated",
    "encrypted": "encrypted",
}
_WORDS: Final = {"high": "HIGH", "medium": "MEDIUM", "low": "note", "ok": "ok"}
_MOST_FINDINGS: Final = 6
_TITLE_WIDTH: Final = 34


def summary(audit: Mapping[str, Any]) -> str:
    """At most about 30 lines of 100 columns; AuditError as in ``check``."""
    check(audit)
    twins = audit["twins"]
    rows = [["attack", "figure", *(_SHORT.get(twin, twin) for twin in twins), "records"]]
    for attack in audit["attacks"]:
        primary = attack.get("primary") or "–"
        row = [_cut(attack["title"], _TITLE_WIDTH), _cut(metric_name(primary), 22)]
        asked = 0
        for twin in twins:
            cell = attack["cells"].get(twin, {"status": "–"})
            if cell["status"] == "done":
                row.append(value_text(float(cell["metrics"][primary]["value"]), primary))
                asked = max(asked, int(cell["spent"]["records"]))
            else:
                row.append(str(cell["status"]))
        rows.append([*row, f"{asked:,}" if asked else "–"])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(_padded(row, widths)).rstrip() for row in rows]
    lines.insert(1, "─" * min(100, max(map(len, lines))))
    blind = audit.get("blind")
    if blind is not None:
        auc = blind["auc"]
        holds = "holds" if blind["holds"] else "FAILS: membership figures mean nothing"
        lines.append(
            f"blind baseline: AUC {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}], {holds}"
        )
    lines.append("")
    for finding in audit["findings"][:_MOST_FINDINGS]:
        lines.append(_cut(f"{_WORDS[finding['severity']]:<7}{finding['title']}", 100))
    return "\n".join(lines)


def _padded(row: list[str], widths: list[int]) -> list[str]:
    """Names to the left, figures to the right."""
    return [
        text.ljust(width) if column < 2 else text.rjust(width)
        for column, (text, width) in enumerate(zip(row, widths, strict=True))
    ]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
