"""What a page can be made of: the fields that audit.json must have, checked before it is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from attacks.errors import AuditError

SCHEMA: Final = 1
_STATUS: Final = ("done", "refused", "failed")
_SEVERITIES: Final = ("high", "medium", "low", "ok")


def check(audit: Mapping[str, Any]) -> None:
    """Raise AuditError with the path of the first field that is missing or of another kind."""
    if _at(audit, "schema", int, "") != SCHEMA:
        raise AuditError(f"schema: expected {SCHEMA}, got {audit['schema']!r}")
    for name in ("project_version", "created", "command", "game", "machine"):
        _at(audit, name, str, "")
    _at(audit, "duration_s", (int, float), "")
    for name in ("model", "data", "config", "seeds", "versions", "plan"):
        _at(audit, name, Mapping, "")
    model = audit["model"]
    _at(model, "name", str, "model.")
    for name in ("accuracy", "train_accuracy"):
        for twin, estimate in _at(model, name, Mapping, "model.").items():
            check_estimate(estimate, f"model.{name}.{twin}")
    twins = _at(audit, "twins", list, "")
    for index, finding in enumerate(_at(audit, "findings", list, "")):
        where = f"findings[{index}]."
        for name in ("title", "text", "advice"):
            _at(finding, name, str, where)
        _one_of(_at(finding, "severity", str, where), _SEVERITIES, f"{where}severity")
    for index, threat in enumerate(_at(audit, "threat_models", list, "")):
        for name in ("name", "text"):
            _at(threat, name, str, f"threat_models[{index}].")
    if audit.get("blind") is not None:
        check_estimate(_at(audit["blind"], "auc", Mapping, "blind."), "blind.auc")
        _at(audit["blind"], "holds", bool, "blind.")
        _at(audit["blind"], "note", str, "blind.")
    for index, suite in enumerate(audit.get("ciphertext") or ()):
        for name in ("title", "threat_model", "reference", "control", "defended", "residual"):
            _at(suite, name, str, f"ciphertext[{index}].")
        _at(suite, "holds", bool, f"ciphertext[{index}].")
    if audit.get("evasion") is not None:
        _check_evasion(audit["evasion"])
    for index, remedy in enumerate(audit.get("remedies") or ()):
        _check_remedy(remedy, f"remedies[{index}].")
    for index, suite in enumerate(audit.get("poisoning") or ()):
        _check_poisoning(suite, f"poisoning[{index}].")
    for index, attack in enumerate(_at(audit, "attacks", list, "")):
        _check_attack(attack, twins, f"attacks[{index}].")


def _check_evasion(evasion: Any) -> None:
    _at(evasion, "epsilon", (int, float), "evasion.")
    for index, check in enumerate(_at(evasion, "checks", list, "evasion.")):
        where = f"evasion.checks[{index}]."
        _at(check, "title", str, where)
        _at(check, "notes", list, where)
        for name in ("held", "tried"):
            for twin in _at(check, name, Mapping, where):
                _at(check[name], twin, int, f"{where}{name}.")


def _check_remedy(remedy: Any, where: str) -> None:
    for name in ("name", "title", "cost", "reason"):
        _at(remedy, name, str, where)
    _at(remedy, "worth", (int, float), where)
    if remedy.get("accuracy") is None:
        return
    for name in ("accuracy", "lost"):
        check_estimate(remedy.get(name), f"{where}{name}")
    for family, effect in _at(remedy, "effects", Mapping, where).items():
        path = f"{where}effects.{family}."
        _at(effect, "against", str, path)
        _at(effect, "measurable", bool, path)
        for name in ("before", "after", "removed"):
            check_estimate(effect.get(name), f"{path}{name}")


def _check_poisoning(suite: Any, where: str) -> None:
    for name in ("title", "threat_model", "reference"):
        _at(suite, name, str, where)
    _at(suite, "share", (int, float), where)
    _at(suite, "notes", list, where)
    for twin, figures in _at(suite, "figures", Mapping, where).items():
        for name, estimate in figures.items():
            check_estimate(estimate, f"{where}figures.{twin}.{name}")
        for name in ("poison_success", "accuracy"):
            for each in (name, f"clean_{name}"):
                _at(figures, each, Mapping, f"{where}figures.{twin}.")


def check_estimate(value: Any, where: str) -> None:
    """Raise AuditError unless this is an estimate with finite numbers in order."""
    if not isinstance(value, Mapping):
        raise AuditError(f"{where}: expected an estimate, got {type(value).__name__}")
    numbers = [_at(value, name, (int, float), f"{where}.") for name in ("low", "value", "high")]
    if not all(math.isfinite(number) for number in numbers) or numbers[0] > numbers[2]:
        raise AuditError(f"{where}: low, value and high must be finite and in order")
    _at(value, "method", str, f"{where}.")


def _check_attack(attack: Any, twins: list[Any], where: str) -> None:
    for name in ("name", "family", "title", "reference", "threat_model", "needs"):
        _at(attack, name, str, where)
    for twin, cell in _at(attack, "cells", Mapping, where).items():
        path = f"{where}cells.{twin}."
        if twin not in twins:
            raise AuditError(f"{path[:-1]}: not one of the twins")
        _one_of(_at(cell, "status", str, path), _STATUS, f"{path}status")
        if cell["status"] != "done":
            continue
        for group in ("metrics", "baseline"):
            for name, estimate in _at(cell, group, Mapping, path).items():
                check_estimate(estimate, f"{path}{group}.{name}")
        if attack.get("primary") not in cell["metrics"]:
            raise AuditError(f"{path}metrics: lacks the primary figure {attack.get('primary')!r}")
        for name, curve in _at(cell, "curves", Mapping, path).items():
            _check_curve(curve, f"{path}curves.{name}")
        spent = _at(cell, "spent", Mapping, path)
        for name in ("records", "requests", "bytes_sent", "bytes_received", "seconds"):
            _at(spent, name, (int, float), f"{path}spent.")
    for index, pair in enumerate(_at(attack, "paired", list, where)):
        path = f"{where}paired[{index}]."
        for name in ("from", "to", "metric"):
            _at(pair, name, str, path)
        check_estimate(_at(pair, "difference", Mapping, path), f"{path}difference")


def _check_curve(curve: Any, where: str) -> None:
    columns = [_at(curve, name, list, f"{where}.") for name in ("x", "y", "low", "high")]
    if len({len(column) for column in columns}) != 1:
        raise AuditError(f"{where}: x, y, low and high must be of one length")
    for column in columns:
        if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in column):
            raise AuditError(f"{where}: a point is not a finite number")


def _at(value: Any, name: str, kind: Any, where: str) -> Any:
    if not isinstance(value, Mapping) or name not in value:
        raise AuditError(f"{where}{name}: missing")
    found = value[name]
    if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
        raise AuditError(f"{where}{name}: has the wrong type, {type(found).__name__}")
    return found


def _one_of(value: str, allowed: tuple[str, ...], where: str) -> None:
    if value not in allowed:
        raise AuditError(f"{where}: expected one of {', '.join(allowed)}, got {value!r}")
