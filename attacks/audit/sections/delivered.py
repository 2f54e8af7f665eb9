"""Extraction of the model with the weights that it came with, beside the retrained targets.

Its training records are not known here, so no membership attack has it for a target, and no average
includes it. But its weights are what the owner wants to keep.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from torch import nn

from attacks.audit.bench.data import Split
from attacks.audit.bench.trained import OpenTarget, served_twins
from attacks.audit.config import AuditConfig
from attacks.audit.document.records import REFUSED, AuditRecord, PooledTrial
from attacks.audit.section import AuditSetting, Section
from attacks.oracles.twins import ENCRYPTED, POLYNOMIAL, RELU, SIMULATED

DELIVERED: Final = "as delivered"
SUFFIX: Final = "-delivered"
# Attacks that recover the weights themselves. What the others copy, retrained targets show.
EXACT: Final = ("quadratic-extraction", "line-extraction")
NO_TWIN: Final = (
    "the delivered weights are those of one network; its ReLU original, if there was one, is not "
    "at hand"
)


@dataclass(frozen=True, kw_only=True)
class DeliveredBench:
    """One target, number 0: the network as it was delivered, in the clear and served."""

    model: nn.Module
    split: Split
    config: AuditConfig
    twins: Sequence[str] = (POLYNOMIAL, SIMULATED, ENCRYPTED)
    targets: Sequence[int] = (0,)

    @contextmanager
    def open(self, target: int) -> Iterator[OpenTarget]:
        with served_twins(
            self.split,
            relu=self.model,
            polynomial=self.model,
            sample=self.split.pool.inputs,
            records=self.config.packed_for,
            seed=self.config.seed + target,
        ) as twins:
            yield OpenTarget(twins=twins, split=self.split, config=self.config, membership={})


def _run(setting: AuditSetting, record: AuditRecord) -> AuditRecord:
    """A row for each exact attack that was chosen; none if the model came without weights."""
    subject = setting.subject
    if subject.delivered is None:
        return record
    note = (
        f"targets were retrained from fresh weights, because membership can only be tested where "
        f"members are known; the weights that {subject.name} came with were attacked by "
        f"extraction only, in the rows that end in “{DELIVERED}”"
    )
    record = dataclasses.replace(record, notes=(*record.notes, note))
    attacks = {
        f"{name}{SUFFIX}": dataclasses.replace(entry, title=f"{entry.title}, {DELIVERED}")
        for name, entry in setting.chosen.items()
        if name in EXACT
    }
    if not attacks:
        return record
    bench = DeliveredBench(model=subject.delivered, split=subject.split, config=setting.config)
    trials = setting.runner.run(
        bench,
        attacks,
        budgets=dict.fromkeys(attacks, setting.config.budget),
        recorded=frozenset({ENCRYPTED}),
        prefix="delivered-",
        about=f" {DELIVERED}",
    )
    missing = {RELU: PooledTrial(status=REFUSED, reason=NO_TWIN)}
    return setting.with_attacks(record, bench, attacks, trials, missing=missing)


SECTION: Final = Section(run=_run)
