"""``he-infer audit``: settings from flags and file, progress on stderr, a summary on stdout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attacks.audit.config import AuditConfig, config_of, read_toml
from attacks.audit.document.records import DONE, AttackRecord, AuditRecord
from attacks.audit.run import Audit, run_audit
from attacks.cli.errors import readable_errors
from attacks.errors import AuditError
from attacks.progress import Progress
from attacks.report import write_report
from he_infer.cli.console import print_json, print_table, progress_bars, warn


def run_audit_command(
    flags: Mapping[str, Any], file: Path | None, *, as_json: bool, cluster: str | None = None
) -> int:
    """Run the audit that ``file`` and ``flags``, which come first, describe; the exit code.

    Raises AttackSuiteError, or another HEInferError, for whatever has a way out.
    """
    with readable_errors(), training_on(cluster), progress_bars() as progress:
        settings = {} if file is None else read_toml(file)
        audit = audit_and_report(config_of(settings | dict(flags)), progress=progress, tell=warn)
    if as_json:
        print_json(audit.document)
    else:
        print_summary(audit)
    return 0


def audit_and_report(
    config: AuditConfig,
    *,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Audit:
    """Run or resume the audit and write its report beside audit.json; raises what they raise."""
    audit = run_audit(config, progress=progress, tell=tell)
    write_report(audit.document, audit.report_path)
    return audit


@contextmanager
def training_on(cluster: str | None) -> Iterator[None]:
    """Spread shadow models over a Ray cluster whose machines share the audit's folder."""
    if cluster is None:
        yield
        return
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise AuditError(
            "a cluster needs Ray: install the extra, pip install 'he-infer[cluster]'"
        ) from error
    import joblib

    try:
        ray.init(address=cluster, log_to_driver=False, ignore_reinit_error=True)
    except (ConnectionError, ValueError) as error:
        raise AuditError(f"no Ray cluster answers at {cluster}: start one, or leave it out") from (
            error
        )
    register_ray()
    with joblib.parallel_config(backend="ray", n_jobs=-1):
        yield


def print_summary(audit: Audit) -> None:
    """The primary figure of every attack by twin, then the findings, then the files."""
    record = audit.record
    print_table(*attack_table(record))
    if record.blind is not None:
        print(
            f"\nblind baseline: {'holds' if record.blind.holds else 'FAILS'}: {record.blind.note}"
        )
    print()
    for finding in record.findings:
        print(f"[{finding.severity}] {finding.title}\n    {finding.text}")
        if finding.advice:
            print(f"    → {finding.advice}")
    if audit.resumed:
        print(f"\nresumed: {audit.resumed} results were there already")
    print(f"\nfigures: {audit.json_path}\nreport:  {audit.report_path}")


def attack_table(record: AuditRecord) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the primary figure of every attack by twin, with its interval."""
    rows = [
        [attack.name, attack.primary or "–", *(_cell(attack, twin) for twin in record.twins)]
        for attack in record.attacks
    ]
    return ["attack", "figure", *record.twins], rows


def _cell(attack: AttackRecord, twin: str) -> str:
    trial = attack.cells.get(twin)
    if trial is None:
        return "–"
    if trial.status != DONE or attack.primary is None:
        return trial.status
    figure = trial.metrics[attack.primary]
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"
