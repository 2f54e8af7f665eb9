"""Answers kept in a file, so that an interrupted attack does not ask its queries again.

The file is an SQLite database. The answers to a request are written in one transaction: a process
that dies leaves whole requests, and damage by another program is noticed.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from attacks.core.arrays import Floats
from attacks.core.oracle import LABELS, SLOTS, Answer, MeteredOracle, OracleInfo, join_answers
from attacks.errors import AnswerFileError

_SCHEMA: Final = 1
_TABLES: Final = """
CREATE TABLE target (facts TEXT NOT NULL);
CREATE TABLE answers (
    digest BLOB NOT NULL, occurrence INTEGER NOT NULL, label INTEGER NOT NULL,
    logits BLOB, probabilities BLOB, PRIMARY KEY (digest, occurrence)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Key:
    """One question: a record's SHA-256, and how often it was asked before, 0 the first time.

    A target whose answers are noisy is asked the same record twice for a reason.
    """

    digest: bytes
    occurrence: int


class Questions:
    """Numbers the occurrences of records in the order in which they are asked."""

    def __init__(self) -> None:
        self._asked: Counter[bytes] = Counter()

    def keys(self, records: Floats) -> list[Key]:
        """A key per record, as if all were asked now; nothing is counted yet."""
        fresh: Counter[bytes] = Counter()
        keys = []
        for record in np.ascontiguousarray(records + 0.0):  # −0.0 and 0.0 are one value
            digest = hashlib.sha256(record.tobytes()).digest()
            keys.append(Key(digest, self._asked[digest] + fresh[digest]))
            fresh[digest] += 1
        return keys

    def count(self, keys: Sequence[Key]) -> None:
        """These were asked and answered."""
        self._asked.update(key.digest for key in keys)


class AnswerFile:
    """Answers of one target by question; made if missing, else it has to be of ``info``.

    ``info`` None opens an existing file for whatever target it is. Raises AnswerFileError for
    another target, a missing folder or a file that is not one of these.
    """

    def __init__(self, path: Path, info: OracleInfo | None) -> None:
        self._path = path
        if info is None and not path.is_file():
            raise AnswerFileError(f"{path} does not exist: record answers first")
        try:
            self._database = sqlite3.connect(path, timeout=30.0)
        except sqlite3.Error as error:
            raise AnswerFileError(f"cannot open {path}: {error}") from error
        self.close = weakref.finalize(self, self._database.close)
        try:
            self.facts = self._open(info)
        except (sqlite3.Error, ValueError, KeyError) as error:
            self.close()
            raise AnswerFileError(
                f"{path} is not a readable file of answers ({error}): move it away to start anew"
            ) from error
        except AnswerFileError:
            self.close()
            raise

    def _open(self, info: OracleInfo | None) -> dict[str, Any]:
        # Write-ahead: a commit survives the death of the process without waiting for the disk.
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        tables = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables == 0 and info is not None:
            facts = json.dumps(facts_of(info))
            with self._database:
                self._database.executescript(f"BEGIN;{_TABLES}PRAGMA user_version = {_SCHEMA};")
                self._database.execute("INSERT INTO target VALUES (?)", (facts,))
        elif version != _SCHEMA:
            raise ValueError(f"format {version}, this build reads {_SCHEMA}")
        found: dict[str, Any] = json.loads(
            self._database.execute("SELECT facts FROM target").fetchone()[0]
        )
        if info is not None and _identity(found) != _identity(facts_of(info)):
            changed = [n for n, v in _identity(facts_of(info)).items() if found[n] != v]
            raise AnswerFileError(
                f"{self._path} holds answers of another target ({found['name']}, "
                f"{found['kind']}; different: {', '.join(changed)}): use another file"
            )
        return found

    def __len__(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM answers").fetchone()[0])

    def find(self, keys: Sequence[Key]) -> list[Answer | None]:
        """The answer to each question, of one record each; None where there is none."""
        return [self._find(key) for key in keys]

    def add(self, keys: Sequence[Key], answer: Answer) -> None:
        """Keep ``answer`` (len(keys) records), all of it or nothing."""
        rows = [
            (
                key.digest,
                key.occurrence,
                int(answer.labels[index]),
                None if answer.logits is None else answer.logits[index].tobytes(),
                None if answer.probabilities is None else answer.probabilities[index].tobytes(),
            )
            for index, key in enumerate(keys)
        ]
        try:
            with self._database:
                self._database.executemany(
                    "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", rows
                )
        except sqlite3.Error as error:
            raise AnswerFileError(f"cannot write to {self._path}: {error}") from error

    def _find(self, key: Key) -> Answer | None:
        try:
            row = self._database.execute(
                "SELECT label, logits, probabilities FROM answers "
                "WHERE digest = ? AND occurrence = ?",
                (key.digest, key.occurrence),
            ).fetchone()
            if row is None:
                return None
            scores = [None if blob is None else np.frombuffer(blob)[None] for blob in row[1:]]
        except (sqlite3.Error, ValueError) as error:
            raise AnswerFileError(f"{self._path} is damaged: {error}") from error
        return Answer(
            labels=np.array([row[0]], dtype=np.int64), logits=scores[0], probabilities=scores[1]
        )


class Replayed(MeteredOracle):
    """Answers from a file that ``Recorded`` wrote, and from nothing else.

    ``info`` None: what the file says of its target. The ledger counts records as the target's
    would. Raises AnswerFileError for a file of another target, and for records it lacks.
    """

    def __init__(self, path: Path, info: OracleInfo | None = None) -> None:
        self._file = AnswerFile(Path(path), info)
        self._questions = Questions()
        super().__init__(info_of(self._file.facts) if info is None else without_slots(info))

    def _answer(self, records: Floats) -> Answer:
        keys = self._questions.keys(records)
        found = self._file.find(keys)
        present = [answer for answer in found if answer is not None]
        if len(present) < len(found):
            raise AnswerFileError(
                f"{self._info.name}: {len(found) - len(present)} of {len(found)} records were "
                "never recorded: replay with the seed and settings of the recording"
            )
        self._questions.count(keys)
        return rows_as_one(present)


def rows_as_one(answers: Sequence[Answer]) -> Answer:
    """Answers of one record each as one that cost nothing."""
    return replace(join_answers(answers), requests=0)


def without_slots(info: OracleInfo) -> OracleInfo:
    """Slots belong to requests, not to records, so a file of answers does not keep them."""
    return info.answering(info.answers - {SLOTS})


def facts_of(info: OracleInfo) -> dict[str, Any]:
    kept = {"input_shape": list(info.input_shape), "answers": sorted(info.answers - {SLOTS})}
    return asdict(info) | kept


def info_of(facts: dict[str, Any]) -> OracleInfo:
    return OracleInfo(
        name=str(facts["name"]),
        kind=str(facts["kind"]),
        input_shape=tuple(int(side) for side in facts["input_shape"]),
        classes=int(facts["classes"]),
        low=float(facts["low"]),
        high=float(facts["high"]),
        answers=frozenset(facts["answers"]) | {LABELS},
        batch=None if facts["batch"] is None else int(facts["batch"]),
        version=str(facts["version"]),
    )


def _identity(facts: dict[str, Any]) -> dict[str, Any]:
    """What makes a target another one; the stated interval and the batch do not."""
    names = ("name", "kind", "input_shape", "classes", "answers", "version")
    return {name: facts[name] for name in names}
