"""The audit's attacks on ciphertexts: on the audited network, compiled twice, with real keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from attacks.audit.bench.bench import TrainedBench
from attacks.audit.bench.state import CellName, StateStore
from attacks.audit.figures.findings import Finding
from attacks.catalogue import CIPHERTEXT
from attacks.ciphertext.suite import Effort, run_suite
from attacks.errors import AuditError
from attacks.oracles.channels import PlanBench
from attacks.progress import Progress
from he_infer.compiler.pipeline import compile
from he_infer.errors import HEInferError
from he_infer.plan.privacy import FunctionPrivacy

EFFORT: Final = Effort(replies=64, queries=30, noise_replies=30, timings=200, observed=120)
_NAME: Final = CellName(twin=CIPHERTEXT, attack="suite", target=0)


def ciphertext_checks(
    bench: TrainedBench, store: StateStore, *, seed: int, progress: Progress | None
) -> list[dict[str, Any]]:
    """The checks' JSON, from the audit's state if they are there.

    The network is the first target's polynomial twin, one record a query: the layout that leaves
    the most slots outside a reply. Raises AuditError if it cannot be compiled so.
    """
    saved = store.load(_NAME)
    if saved is not None:
        found: list[dict[str, Any]] = saved["checks"]
        return found
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
        done = 0

        def tell(_: str) -> None:
            nonlocal done
            if progress is not None:
                progress("attacks on ciphertexts", done, 11)
            done += 1

        checks = [c.to_json() for c in run_suite(suite, EFFORT, seed=seed, tell=tell)]
    store.save(_NAME, {"checks": checks})
    return checks


def ciphertext_findings(checks: Sequence[dict[str, Any]]) -> list[Finding]:
    """What the checks mean: one finding for all that hold, one for each that does not."""
    found = [
        Finding(
            severity="high",
            title=f"{check['title']}: the service gives it away",
            text=f"{check['defended']}. Where nothing defends: {check['control']}.",
            advice="Compile without unchecked options, and report this as a fault of the service.",
        )
        for check in checks
        if not check["holds"]
    ]
    blunt = [check["title"] for check in checks if check["control_broken"] is False]
    if blunt:
        found.append(
            Finding(
                severity="low",
                title="Some attacks on ciphertexts did not work where nothing defends",
                text=f"{'; '.join(blunt)}: what they say about the service is void.",
                advice="Run `python -m benchmarks service`, which asks for much more.",
            )
        )
    held = [check for check in checks if check["holds"] and check["control_broken"]]
    if held:
        found.append(
            Finding(
                severity="ok",
                title="Ciphertexts tell clients the outputs and, as far as tried, nothing else",
                text=f"{len(held)} attacks that break an undefended plan of this network fail on "
                "the one that is served.",
            )
        )
    return found
