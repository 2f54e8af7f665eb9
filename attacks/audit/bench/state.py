"""Finished trials on disk, so that an interrupted audit goes on where it stopped.

    OUT/state/<key>/config.json                       what the key stands for
    OUT/state/<key>/cells/<twin>.<attack>.<target>.json   one finished trial
    OUT/state/<key>/answers/…                         what targets answered and was paid for

A trial appears by a rename, whole or not at all. The key is the hash of everything that decides
the figures, so a changed configuration finds an empty folder and never a stale trial.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from attacks.errors import AuditError

_KEY_LETTERS: Final = 16
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialName:
    """One attack on one twin of one target; names in lower case letters, digits and dashes."""

    twin: str
    attack: str
    target: int

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.twin) or not _NAME.fullmatch(self.attack) or self.target < 0:
            raise AuditError(f"not the name of a trial: {self.twin}.{self.attack}.{self.target}")

    def __str__(self) -> str:
        return f"{self.twin}.{self.attack}.{self.target}"


class StateStore:
    """The trials of one configuration below ``out``; ``key`` is AuditConfig.key's."""

    def __init__(self, out: Path, key: str, *, description: Mapping[str, Any]) -> None:
        """Raises AuditError if ``out`` cannot be written to or holds a file in the way."""
        self.key = key
        self._folder = out / "state" / key[:_KEY_LETTERS]
        try:
            self._cells.mkdir(parents=True, exist_ok=True)
            self.answers.mkdir(exist_ok=True)
            write_atomically(self._folder / "config.json", dump({"key": key, **description}))
        except OSError as error:
            raise AuditError(
                f"cannot keep the audit's state in {self._folder}: {error.strerror or error}"
            ) from error

    @property
    def _cells(self) -> Path:
        return self._folder / "cells"

    @property
    def answers(self) -> Path:
        """The folder for recorded answers."""
        return self._folder / "answers"

    def load(self, name: TrialName) -> dict[str, Any] | None:
        """What was saved under ``name``; None if nothing was, or if it is damaged."""
        path = self._path(name)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            body: dict[str, Any] = document["cell"]
            intact = document["key"] == self.key and document["digest"] == _digest(body)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            intact = False
        if intact:
            return body
        # A disk that was full or an edit by hand: the trial is made again.
        with contextlib.suppress(OSError):
            path.unlink()
        return None

    def save(self, name: TrialName, trial: Mapping[str, Any]) -> None:
        """Keep ``trial``, JSON without NaN; raises AuditError if it cannot be written."""
        body = json.loads(dump(trial))
        document = dump({"key": self.key, "digest": _digest(body), "cell": body})
        try:
            write_atomically(self._path(name), document)
        except OSError as error:
            raise AuditError(f"cannot save {name}: {error.strerror or error}") from error

    def finished(self) -> int:
        """How many trials there are."""
        return sum(1 for _ in self._cells.glob("*.json"))

    def _path(self, name: TrialName) -> Path:
        return self._cells / f"{name}.json"


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all; raises OSError."""
    # Named by the process, so that two audits never write into one file.
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def dump(value: Any) -> str:
    """JSON with sorted keys; ValueError for a number that is not finite."""
    return json.dumps(value, sort_keys=True, allow_nan=False)


def _digest(body: Any) -> str:
    return hashlib.sha256(dump(body).encode()).hexdigest()
