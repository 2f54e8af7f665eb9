"""An audit from configuration to report: data, models, attacks, figures, findings, files.

Everything that takes time is kept as soon as it is there: trained models, answers of the
encrypted service, finished cells. The same configuration run again goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

import attacks
import he_infer
from attacks.audit.bench.bench import TrainedBench, epsilon_for
from attacks.audit.bench.cell import DONE, Cell
from attacks.audit.bench.cells import run_cells
from attacks.audit.bench.data import load_records, split_records
from attacks.audit.bench.models import Subject, read_subject
from attacks.audit.bench.state import CellName, StateStore, write_atomically
from attacks.audit.bench.threads import one_thread
from attacks.audit.config import AuditConfig
from attacks.audit.figures.document import (
    GAME,
    SCHEMA,
    THREAT_MODELS,
    accuracy_of,
    estimates,
    row_to_json,
    rows_of,
    versions,
)
from attacks.audit.figures.findings import findings
from attacks.audit.sections.accuracy import ACCURACY, ENTRY
from attacks.audit.sections.advice import Remedy, remedies_of, remedy_findings
from attacks.audit.sections.blind import BlindFigure, blind_figure
from attacks.audit.sections.ciphertexts import ciphertext_checks, ciphertext_findings
from attacks.audit.sections.delivered import DELIVERED, delivered_rows
from attacks.audit.sections.evasion import check_rows, evasion_cells, evasion_findings
from attacks.audit.sections.poisoning import poisoning_checks, poisoning_findings
from attacks.catalogue import ATTACKS, CIPHERTEXT, POISONING, REMEDIES, choose
from attacks.core.entry import EVASION, MEMBERSHIP
from attacks.oracles.twins import ENCRYPTED, POLYNOMIAL, RELU, TWINS
from attacks.progress import Progress
from he_infer.cli.doctor import inspect_machine
from he_infer.compiler.pipeline import DEFAULT_PRECISION_BITS
from he_infer.version import __version__

# The owner's own questions are no attack and have no budget.
UNLIMITED: Final = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """``document``: what audit.json holds; ``json_path`` and ``report_path``: where it was put.

    ``resumed``: cells that were there already.
    """

    document: Mapping[str, Any]
    json_path: Path
    report_path: Path
    resumed: int


def run_audit(
    config: AuditConfig,
    *,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Audit:
    """Run or resume the audit of ``config`` and write audit.json and report.html to its folder.

    ``tell`` is given one line for each attack that failed. Raises AttackError, or HEInferError
    for a model that cannot be read; what was finished before is kept.
    """
    with one_thread():
        return _audit(config, progress, tell)


def _audit(
    config: AuditConfig, progress: Progress | None, tell: Callable[[str], None] | None
) -> Audit:
    started = time.perf_counter()
    chosen = {name: ATTACKS[name] for name in choose(config.attacks)}
    name, records = load_records(config.data)
    split = split_records(
        name, records, pool=config.pool, rng=np.random.default_rng([config.seed, 0])
    )
    subject = read_subject(config, split)
    split = subject.split
    epsilon = epsilon_for(config, split)
    contents = {**subject.contents, "data": split.digest, "code": code_digest(), **versions()}
    store = StateStore(
        config.out,
        config.key(contents),
        description={"config": config.to_json(), "contents": contents},
    )
    bench = TrainedBench(subject, config, progress=progress)
    resumed = store.finished()
    asked = {name: entry for name, entry in chosen.items() if entry.family != EVASION}
    cells = run_cells(
        bench,
        {ACCURACY: ENTRY, **asked},
        store,
        budgets={ACCURACY: UNLIMITED, **dict.fromkeys(asked, config.budget)},
        seed=config.seed,
        recorded=frozenset({ENCRYPTED}),
        progress=progress,
        tell=tell,
    )
    cells |= evasion_cells(bench, chosen, store, config, progress=progress, tell=tell)
    sound = check_rows(cells, TWINS, bench.targets)
    blind = None
    if any(entry.family == MEMBERSHIP for entry in chosen.values()):
        masks = {target: bench.masks[target] for target in bench.targets}
        blind = blind_figure(split.pool, masks, store, seed=config.seed, progress=progress)
    extra = delivered_rows(subject, chosen, store, config, progress=progress, tell=tell)
    checks = []
    if {"all", CIPHERTEXT} & set(config.attacks):
        checks = ciphertext_checks(bench, store, seed=config.seed, progress=progress)
    poisoned = []
    if {"all", POISONING} & set(config.attacks):
        poisoned = poisoning_checks(subject, bench, store, seed=config.seed, progress=progress)
    helping: tuple[Remedy, ...] = ()
    if {"all", REMEDIES} & set(config.attacks):
        helping = remedies_of(bench, subject, store, config, progress=progress, tell=tell)
    rows = rows_of(cells, chosen, TWINS, bench.targets, seed=config.seed)
    accuracy = accuracy_of(cells, TWINS, bench.targets)
    found = findings(
        [*rows, *(row for row, _ in extra)],
        served=ENCRYPTED,
        clear=POLYNOMIAL,
        original=RELU,
        accuracy=accuracy,
        blind=blind,
        notes=_notes(subject),
        more=[
            *ciphertext_findings(checks),
            *poisoning_findings(poisoned),
            *remedy_findings(helping),
            *evasion_findings(rows, sound, epsilon=epsilon),
        ],
    )
    document = {
        "schema": SCHEMA,
        "project_version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_of(config),
        "duration_s": time.perf_counter() - started,
        "model": {
            "name": subject.name,
            "input_shape": list(split.pool.shape),
            "classes": split.classes,
            "parameters": subject.parameters,
            "accuracy": estimates(accuracy, "accuracy"),
            "train_accuracy": estimates(accuracy, "train_accuracy"),
        },
        "data": {
            "name": split.name,
            "pool": len(split.pool),
            "members_per_target": int(bench.masks[0].sum()),
            "test": len(split.test),
            "population": len(split.population),
            "digest": split.digest,
        },
        "config": {**config.to_json(), "key": store.key, "models_trained": config.models},
        "seeds": {
            "audit": config.seed,
            "targets": {str(target): bench.model_seeds[target] for target in bench.targets},
            "models": bench.model_seeds,
        },
        "versions": versions(),
        "machine": machine(),
        "plan": {**bench.plan().to_json(), "precision_bits": DEFAULT_PRECISION_BITS},
        "twins": list(TWINS),
        "threat_models": list(THREAT_MODELS),
        "game": GAME,
        "attacks": [
            *(
                row_to_json(row, chosen[row.name], _done(cells, row.name, bench.targets))
                for row in rows
            ),
            *(
                row_to_json(row, entry, {twin: 1 for twin in TWINS if twin in row.cells})
                for row, entry in extra
            ),
        ],
        "ciphertext": checks,
        "evasion": {"epsilon": epsilon, "checks": sound} if sound else None,
        "remedies": [remedy.to_json() for remedy in helping],
        "poisoning": poisoned,
        "blind": _blind(blind),
        "findings": [finding.to_json() for finding in found],
        "notes": list(_notes(subject)),
    }
    return _write(document, config.out, resumed)


def code_digest() -> str:
    """SHA-256 of the sources of both packages: figures of other code are not mixed with these."""
    found = hashlib.sha256()
    for package in (attacks, he_infer):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            found.update(path.relative_to(folder).as_posix().encode())
            found.update(path.read_bytes())
    return found.hexdigest()


def command_of(config: AuditConfig) -> str:
    """The command line that runs the same audit."""
    words = ["he-infer", "audit"]
    for name, value in config.to_json().items():
        if value is None:
            continue
        text = ",".join(value) if isinstance(value, list) else str(value)
        words += [f"--{name.replace('_', '-')}", text]
    return shlex.join(words)


def machine() -> str:
    """Processor, cores and memory in a line."""
    found = inspect_machine()
    return f"{found.cpu}, {found.cores} cores, {found.memory_gb} GB, {found.system}"


def _done(cells: Mapping[CellName, Cell], attack: str, targets: Any) -> dict[str, int]:
    return {
        twin: sum(
            cells[CellName(twin=twin, attack=attack, target=target)].status == DONE
            for target in targets
        )
        for twin in TWINS
    }


def _notes(subject: Subject) -> tuple[str, ...]:
    if subject.delivered is None:
        return subject.notes
    return (
        *subject.notes,
        f"targets were retrained from fresh weights, because membership can only be tested where "
        f"members are known; the weights that {subject.name} came with were attacked by "
        f"extraction only, in the rows that end in “{DELIVERED}”",
    )


def _blind(figure: BlindFigure | None) -> dict[str, Any] | None:
    return None if figure is None else figure.to_json()


def _write(document: Mapping[str, Any], out: Path, resumed: int) -> Audit:
    json_path, report_path = out / "audit.json", out / "report.html"
    write_atomically(json_path, json.dumps(document, indent=2, allow_nan=False) + "\n")
    from attacks.report import write_report

    write_report(document, report_path)
    return Audit(document=document, json_path=json_path, report_path=report_path, resumed=resumed)
