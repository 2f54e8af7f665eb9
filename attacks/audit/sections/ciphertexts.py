"""The audit's attacks on ciphertexts: on the audited network, compiled twice, with real keys."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Final

import numpy as np

from attacks.audit.document.records import AuditRecord, Finding
from attacks.audit.section import AuditSetting, Section
from attacks.catalogue import CIPHERTEXT
from attacks.ciphertext.suite import Check, Effort, run_suite
from attacks.errors import AuditError
from attacks.oracles.channels import PlanBench
from he_infer.compiler.pipeline import compile
from he_infer.errors import HEInferError
from he_infer.plan.privacy import FunctionPrivacy

EFFORT: Final = Effort(replies=64, queries=30, noise_replies=30, timings=200, observed=120)


def _run(setting: AuditSetting, record: AuditRecord) -> AuditRecord:
    if not setting.wants(CIPHERTEXT):
        return record
    checks = setting.remembered(CIPHERTEXT, Check, lambda: _measure(setting))
    return dataclasses.replace(record, ciphertext=checks)


def _measure(setting: AuditSetting) -> list[Check]:
    """On the first target's polynomial twin, one record a query: the layout that leaves the most
    slots outside a reply. Raises AuditError if it cannot be compiled so."""
    bench = setting.bench
    with bench.open(bench.targets[0]) as target:
        network, sample = target.twins.polynomial, target.twins.sample
        try:
            plan, undefended = (
                compile(network, sample, name="target", privacy=privacy)
                for privacy in (None, FunctionPrivacy.unchecked())
            )
        except HEInferError as error:
            raise AuditError(f"the network cannot be compiled for one record: {error}") from error
        records = np.asarray(sample[: EFFORT.observed], dtype=np.float64)
        answers = target.twins.answers(records)
        suite = PlanBench(plan, undefended, records=records, classes=answers.argmax(axis=1))
        done = itertools.count()

        def tell(_: str) -> None:
            setting.runner.progress("attacks on ciphertexts", next(done), 11)

        return run_suite(suite, EFFORT, seed=setting.config.seed, tell=tell)


def _findings(record: AuditRecord) -> Iterator[Finding]:
    """One for all checks that hold, and one for each that does not."""
    checks = record.ciphertext
    for check in checks:
        if not check.holds:
            yield Finding(
                severity="high",
                title=f"{check.title}: the service gives it away",
                text=f"{check.defended}. Where nothing defends: {check.control}.",
                advice="Compile without unchecked options, and report this as a fault of the "
                "service.",
            )
    blunt = [check.title for check in checks if check.control_broken is False]
    if blunt:
        yield Finding(
            severity="low",
            title="Some attacks on ciphertexts did not work where nothing defends",
            text=f"{'; '.join(blunt)}: what they say about the service is void.",
            advice="Run `python -m benchmarks service`, which asks for much more.",
        )
    held = [check for check in checks if check.holds and check.control_broken]
    if held:
        yield Finding(
            severity="ok",
            title="Ciphertexts tell clients the outputs and, as far as tried, nothing else",
            text=f"{len(held)} attacks that break an undefended plan of this network fail on "
            "the one that is served.",
        )


SECTION: Final = Section(run=_run, findings=_findings)
