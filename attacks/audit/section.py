"""What a section of an audit is, and what all sections are run on.

    AuditSetting ──► section.run ──► the record, with the section's own fields filled
    the whole record ──► section.findings ──► what the figures mean

``attacks.audit.run`` lists the sections. A new one is a new file and a line in that list.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeVar

import numpy as np

from attacks.audit.bench.accuracy import ACCURACY, ENTRY
from attacks.audit.bench.models import Subject
from attacks.audit.bench.state import TrialName
from attacks.audit.bench.trained import TrainedBench
from attacks.audit.bench.trial import Trial
from attacks.audit.bench.trials import Bench, TrialRunner
from attacks.audit.config import AuditConfig
from attacks.audit.document.codec import from_json, to_json
from attacks.audit.document.records import AuditRecord, Finding, PooledTrial
from attacks.audit.figures.comparison import compare_twins
from attacks.core.entry import EXTRACTION, MEMBERSHIP, CatalogueEntry
from attacks.oracles.twins import ENCRYPTED

T = TypeVar("T")
# Questions of the owner or the evaluator are no attack, and have no budget.
UNLIMITED: Final = 10**9


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditSetting:
    """What is audited and how. ``chosen``: the catalogue's attacks that ``config`` asks for."""

    config: AuditConfig
    chosen: Mapping[str, CatalogueEntry]
    subject: Subject
    bench: TrainedBench
    runner: TrialRunner

    def wants(self, suite: str) -> bool:
        """Whether ``config`` asks for a suite that is no attack of the catalogue."""
        return not {"all", suite}.isdisjoint(self.config.attacks)

    def of_family(self, family: str) -> dict[str, CatalogueEntry]:
        """The chosen attacks of one family."""
        return {name: entry for name, entry in self.chosen.items() if entry.family == family}

    @functools.cached_property
    def answer_trials(self) -> Mapping[TrialName, Trial]:
        """Accuracy, extraction and membership on every twin of every target.

        They ask many of the same records, so they run together: each target is opened once, and
        an answer of its encrypted service is paid once.
        """
        attacks = self.of_family(EXTRACTION) | self.of_family(MEMBERSHIP)
        return self.runner.run(
            self.bench,
            {ACCURACY: ENTRY, **attacks},
            budgets={ACCURACY: UNLIMITED, **dict.fromkeys(attacks, self.config.budget)},
            recorded=frozenset({ENCRYPTED}),
        )

    def with_attacks(
        self,
        record: AuditRecord,
        bench: Bench,
        attacks: Mapping[str, CatalogueEntry],
        trials: Mapping[TrialName, Trial],
        *,
        missing: Mapping[str, PooledTrial] = MappingProxyType({}),
    ) -> AuditRecord:
        """``record`` with each of ``attacks`` appended; their trials ran on ``bench``.

        ``missing``: twins that the bench does not have, with the reason.
        """
        compared = []
        numbers = {name: number for number, name in enumerate(self.chosen)}
        for name, entry in attacks.items():
            rng = np.random.default_rng([self.config.seed, 5, numbers.get(name, 0)])
            found = compare_twins(name, entry, trials, bench, rng)
            compared.append(dataclasses.replace(found, cells={**missing, **found.cells}))
        return dataclasses.replace(record, attacks=(*record.attacks, *compared))

    def remembered(
        self, suite: str, kind: type[T], measure: Callable[[], Sequence[T]]
    ) -> tuple[T, ...]:
        """The checks of a suite, from the audit's state if it ran before."""
        name = TrialName(twin=suite, attack="suite", target=0)
        saved = self.runner.store.load(name)
        if saved is None:
            saved = {"checks": to_json(measure())}
            self.runner.store.save(name, saved)
        return tuple(
            from_json(kind, check, f"{name}[{index}]")
            for index, check in enumerate(saved["checks"])
        )


def _unchanged(setting: AuditSetting, record: AuditRecord) -> AuditRecord:
    del setting
    return record


def _nothing(record: AuditRecord) -> Iterable[Finding]:
    del record
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """``run``: measures, and returns the record with the figures in it. ``findings``: what the
    figures of a whole record mean. A section may have only one of the two."""

    run: Callable[[AuditSetting, AuditRecord], AuditRecord] = _unchanged
    findings: Callable[[AuditRecord], Iterable[Finding]] = _nothing
