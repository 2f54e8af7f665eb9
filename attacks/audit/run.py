"""An audit from configuration to document: data, models, sections, findings, audit.json.

Everything that takes time is kept as soon as it is there: trained models, answers of the
encrypted service, finished trials. The same configuration run again goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from attacks.audit.bench.data import load_records, split_records
from attacks.audit.bench.models import read_subject
from attacks.audit.bench.state import StateStore, write_atomically
from attacks.audit.bench.threads import one_thread
from attacks.audit.bench.trained import TrainedBench, epsilon_for
from attacks.audit.bench.trials import TrialRunner, silent, unheard
from attacks.audit.config import AuditConfig
from attacks.audit.document.codec import to_json
from attacks.audit.document.records import SEVERITIES, AuditRecord, Finding, ModelRecord
from attacks.audit.document.threats import GAME, THREAT_MODELS
from attacks.audit.provenance import code_digest, command_of, machine, versions
from attacks.audit.section import AuditSetting, Section
from attacks.audit.sections import (
    accuracy,
    advice,
    blind,
    ciphertexts,
    closing,
    comparison,
    delivered,
    evasion,
    extraction,
    membership,
    poisoning,
)
from attacks.catalogue import ATTACKS, choose
from attacks.oracles.twins import TWINS
from attacks.progress import Progress
from he_infer.compiler.pipeline import DEFAULT_PRECISION_BITS
from he_infer.version import __version__

# In the order in which they run, and in which findings of one severity are listed.
SECTIONS: Final[tuple[Section, ...]] = (
    accuracy.SECTION,
    extraction.SECTION,
    membership.SECTION,
    blind.SECTION,
    comparison.SECTION,
    ciphertexts.SECTION,
    poisoning.SECTION,
    advice.SECTION,
    evasion.SECTION,
    delivered.SECTION,
    closing.SECTION,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """``record``: what audit.json holds; ``out``: the folder that it was written to; ``resumed``:
    trials that were there already."""

    record: AuditRecord
    out: Path
    resumed: int

    @property
    def document(self) -> Mapping[str, Any]:
        """The record as JSON."""
        return dict(to_json(self.record))

    @property
    def json_path(self) -> Path:
        return self.out / "audit.json"

    @property
    def report_path(self) -> Path:
        """Where the report belongs."""
        return self.out / "report.html"


def run_audit(
    config: AuditConfig,
    *,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Audit:
    """Run or resume the audit of ``config`` and write audit.json to its folder.

    ``tell`` is given one line for each attack that failed. Raises AttackError, or HEInferError
    for a model that cannot be read; what was finished before is kept.
    """
    started = time.perf_counter()
    with one_thread():
        setting = _prepare(config, progress or silent, tell or unheard)
        resumed = setting.runner.store.finished()
        record = _unmeasured(setting)
        for section in SECTIONS:
            record = section.run(setting, record)
    record = dataclasses.replace(
        record, findings=findings_of(record), duration_s=time.perf_counter() - started
    )
    audit = Audit(record=record, out=config.out, resumed=resumed)
    text = json.dumps(audit.document, indent=2, allow_nan=False)
    write_atomically(audit.json_path, f"{text}\n")
    return audit


def findings_of(record: AuditRecord) -> tuple[Finding, ...]:
    """What the figures of a whole record mean, the worst first."""
    found = (finding for section in SECTIONS for finding in section.findings(record))
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))


def _prepare(config: AuditConfig, progress: Progress, tell: Callable[[str], None]) -> AuditSetting:
    """Read data and model, open the state, and train what is not there yet."""
    chosen = {name: ATTACKS[name] for name in choose(config.attacks)}
    name, records = load_records(config.data)
    split = split_records(
        name, records, pool=config.pool, rng=np.random.default_rng([config.seed, 0])
    )
    subject = read_subject(config, split)
    epsilon_for(config, subject.split)  # too large a one is refused before anything is trained
    contents = {**subject.contents, "data": split.digest, "code": code_digest(), **versions()}
    store = StateStore(
        config.out,
        config.key(contents),
        description={"config": config.to_json(), "contents": contents},
    )
    return AuditSetting(
        config=config,
        chosen=chosen,
        subject=subject,
        bench=TrainedBench(subject, config, progress=progress),
        runner=TrialRunner(store=store, seed=config.seed, progress=progress, tell=tell),
    )


def _unmeasured(setting: AuditSetting) -> AuditRecord:
    """The record as it stands before any section ran."""
    config, subject, bench = setting.config, setting.subject, setting.bench
    split = subject.split
    return AuditRecord(
        project_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command_of(config),
        duration_s=0.0,
        model=ModelRecord(
            name=subject.name,
            input_shape=split.pool.shape,
            classes=split.classes,
            parameters=subject.parameters,
            accuracy={},
            train_accuracy={},
        ),
        data={
            "name": split.name,
            "pool": len(split.pool),
            "members_per_target": int(bench.masks[0].sum()),
            "test": len(split.test),
            "population": len(split.population),
            "digest": split.digest,
        },
        config={
            **config.to_json(),
            "key": setting.runner.store.key,
            "models_trained": config.models,
        },
        seeds={
            "audit": config.seed,
            "targets": {str(target): bench.model_seeds[target] for target in bench.targets},
            "models": bench.model_seeds,
        },
        versions=versions(),
        machine=machine(),
        plan={**to_json(bench.plan()), "precision_bits": DEFAULT_PRECISION_BITS},
        twins=TWINS,
        threat_models=THREAT_MODELS,
        game=GAME,
        notes=subject.notes,
    )
