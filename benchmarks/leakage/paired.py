"""Every attack on every twin, on three data sets: what encryption changes, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from attacks.audit.config import AuditConfig
from attacks.cli.audit import audit_and_report
from attacks.errors import DataSplitError
from attacks.progress import Progress
from benchmarks.record import CHECKOUT
from benchmarks.tables import markdown

_MODELS: Final = Path(__file__).resolve().parent / "models.py"
ATTACKS: Final = (
    "quadratic-extraction",
    "papernot-substitute",
    "knockoff",
    "yeom",
    "modified-entropy",
    "shokri",
    "lira-fixed",
    "rmia",
    "label-only",
)
SERVED: Final = ("simulated", "encrypted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A data set, the factory of its network, and how much is spent on it."""

    data: str
    factory: str = "mnist_mlp"
    budget: int = 6400
    targets: int = 4
    shadows: int = 16
    pool: int = 2000


CASES: Final[Mapping[str, Case]] = {
    "digits": Case(data="digits", factory="digits_mlp", pool=1000),
    "mnist": Case(data="mnist"),
    "fashion-mnist": Case(data="fashion-mnist"),
}
SMALL: Final = Case(
    data="digits", factory="digits_mlp", budget=3000, targets=2, shadows=6, pool=600
)
_REPEATABLE: Final = ("model", "data", "config", "seeds", "versions", "plan", "blind", "machine")


def run(
    cases: Sequence[str],
    folder: Path,
    *,
    seed: int,
    small: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Audit each case below ``folder``, resuming what is there, and put the tables together.

    A data set that is not at hand is named under "absent", with the reason.
    """
    audits: dict[str, Mapping[str, Any]] = {}
    absent: dict[str, str] = {}
    for name in cases:
        case = SMALL if small else CASES[name]
        config = AuditConfig(
            model=f"{_MODELS}:{case.factory}",
            data=case.data,
            out=folder / name,
            attacks=ATTACKS,
            budget=case.budget,
            targets=case.targets,
            shadows=case.shadows,
            pool=case.pool,
            seed=seed,
        )
        try:
            audits[name] = audit_and_report(config, progress=progress, tell=tell).document
        except DataSplitError as error:
            absent[name] = str(error)
    return document(audits, absent)


def document(audits: Mapping[str, Mapping[str, Any]], absent: Mapping[str, str]) -> dict[str, Any]:
    """One row for each cell and each pair, and what is needed to repeat each audit."""
    cells, pairs = [], []
    for data, audit in audits.items():
        for attack in audit["attacks"]:
            for twin, cell in attack["cells"].items():
                cells.append(_cell(data, attack, twin, cell))
            pairs += [{"data": data, "attack": attack["name"], **pair} for pair in attack["paired"]]
    agreement = [p for p in pairs if (p["from"], p["to"]) == SERVED]
    return {
        "cells": cells,
        "pairs": pairs,
        "simulated_agrees_with_encrypted": {
            "figures": len(agreement),
            "outside": [
                f"{p['data']}, {p['attack']}, {p['metric']}" for p in agreement if p["significant"]
            ],
        },
        "audits": {
            data: {name: _without_paths(audit[name]) for name in _REPEATABLE}
            | {"created": audit["created"], "duration_s": audit["duration_s"]}
            for data, audit in audits.items()
        },
        "absent": dict(absent),
    }


def _cell(
    data: str, attack: Mapping[str, Any], twin: str, cell: Mapping[str, Any]
) -> dict[str, Any]:
    done = cell["status"] == "done"
    return {
        "data": data,
        "attack": attack["name"],
        "family": attack["family"],
        "twin": twin,
        "status": cell["status"],
        "reason": cell["reason"],
        "metric": attack["primary"] if done else None,
        "metrics": cell["metrics"],
        "baseline": cell["baseline"],
        "records": cell["spent"]["records"] if done else 0,
        "requests": cell["spent"]["requests"] if done else 0,
        "targets": cell["targets"],
    }


def _without_paths(value: Any) -> Any:
    """Where the measurement ran says nothing about it."""
    if isinstance(value, Mapping):
        return {k: _without_paths(v) for k, v in value.items() if k not in ("out", "weights")}
    return value.removeprefix(f"{CHECKOUT}/") if isinstance(value, str) else value


def table(found: Mapping[str, Any]) -> list[str]:
    """The table for the documentation: one row an attack and data set, one column a twin."""
    twins = list(dict.fromkeys(cell["twin"] for cell in found["cells"]))
    rows = []
    for data, attack in dict.fromkeys((c["data"], c["attack"]) for c in found["cells"]):
        own = {c["twin"]: c for c in found["cells"] if (c["data"], c["attack"]) == (data, attack)}
        texts = [_text(own[twin]) if twin in own else "–" for twin in twins]
        asked = max(cell["records"] for cell in own.values())
        metric = next((c["metric"] for c in own.values() if c["metric"]), None)
        name = attack if metric is None else f"{attack}, {metric}"
        rows.append((data, name, *texts, f"{asked:,}"))
    return markdown(("data", "attack", *twins, "records"), rows)


def _text(cell: Mapping[str, Any]) -> str:
    if cell["status"] != "done":
        return str(cell["status"])
    figure = cell["metrics"][cell["metric"]]
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
