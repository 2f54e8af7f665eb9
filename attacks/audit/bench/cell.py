"""One cell of an audit: one attack on one twin of one target, as it is saved.

What an attack cannot do is a cell too: "refused" with the reason, never a gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from attacks.core.intervals import Estimate
from attacks.core.oracle import Spent
from attacks.core.result import AttackResult, Curve
from attacks.errors import AuditError
from attacks.membership.outcome import MembershipScores

DONE: Final = "done"
REFUSED: Final = "refused"
FAILED: Final = "failed"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cell:
    """``status``: done, refused (the attack cannot work here, see ``reason``) or failed (it
    should have worked and did not). The rest is empty unless it is done; ``scored`` only of
    membership attacks."""

    status: str
    reason: str | None = None
    primary: str = ""
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    baseline: Mapping[str, Estimate] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    scored: MembershipScores | None = None

    @classmethod
    def of(cls, result: AttackResult, notes: tuple[str, ...] = ()) -> Cell:
        """What ``result`` says; its artifact is kept if it is membership scores."""
        scored = result.artifact if isinstance(result.artifact, MembershipScores) else None
        return cls(
            status=DONE,
            primary=result.primary,
            metrics=result.metrics,
            baseline=result.baseline,
            curves=result.curves,
            spent=result.spent,
            seconds=result.seconds,
            notes=(*result.notes, *notes),
            scored=scored,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "reason": self.reason,
            "primary": self.primary,
            "metrics": {name: e.to_json() for name, e in self.metrics.items()},
            "baseline": {name: e.to_json() for name, e in self.baseline.items()},
            "curves": {name: curve.to_json() for name, curve in self.curves.items()},
            "spent": spent_to_json(self.spent),
            "seconds": self.seconds,
            "notes": list(self.notes),
            "scores": None if self.scored is None else self.scored.scores.tolist(),
            "members": None
            if self.scored is None
            else "".join("1" if member else "0" for member in self.scored.is_member),
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Cell:
        """The cell that ``to_json`` made; AuditError if it is not one."""
        try:
            scored = None
            if saved["scores"] is not None:
                scored = MembershipScores(
                    scores=np.asarray(saved["scores"], dtype=np.float64),
                    is_member=np.array([letter == "1" for letter in saved["members"]]),
                )
            return cls(
                status=saved["status"],
                reason=saved["reason"],
                primary=saved["primary"],
                metrics={n: Estimate(**e) for n, e in saved["metrics"].items()},
                baseline={n: Estimate(**e) for n, e in saved["baseline"].items()},
                curves={n: _curve(c) for n, c in saved["curves"].items()},
                spent=Spent(**saved["spent"]),
                seconds=saved["seconds"],
                notes=tuple(saved["notes"]),
                scored=scored,
            )
        except (KeyError, TypeError) as error:
            raise AuditError(f"a saved cell lacks {error}: delete the audit's state") from error


def spent_to_json(spent: Spent) -> dict[str, Any]:
    return {
        "records": spent.records,
        "requests": spent.requests,
        "bytes_sent": spent.bytes_sent,
        "bytes_received": spent.bytes_received,
        "seconds": spent.seconds,
    }


def _curve(saved: Mapping[str, Any]) -> Curve:
    return Curve(
        x=tuple(saved["x"]),
        y=tuple(saved["y"]),
        low=tuple(saved["low"]),
        high=tuple(saved["high"]),
        x_label=saved["x_label"],
        y_label=saved["y_label"],
    )
