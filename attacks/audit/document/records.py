"""The records of audit.json: every figure with its interval, and all that repeats the audit.

    AuditRecord ─┬─ model, data, plan, config, seeds, versions     what was audited, and how
                 ├─ attacks: AttackRecord ─┬─ cells: PooledTrial       one for each twin
                 │                         └─ paired: PairedDifference between two twins
                 ├─ blind, evasion, ciphertext, poisoning, remedies    one for each section
                 └─ findings, notes                                what it means, in words

The field names are the keys of the file, except where a field says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from attacks.catalogue import ATTACKS
from attacks.ciphertext.suite import Check
from attacks.core.intervals import Estimate
from attacks.core.oracle import Spent
from attacks.core.result import Curve
from attacks.errors import AuditError

Severity = Literal["high", "medium", "low", "ok"]
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
Status = Literal["done", "refused", "failed"]
DONE: Final = "done"
REFUSED: Final = "refused"
FAILED: Final = "failed"
_OPTIONAL: Final = {"optional": True}


def is_significant(difference: Estimate) -> bool:
    """Whether the interval of a difference leaves 0 out."""
    return difference.low > 0 or difference.high < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a figure means. ``advice``: what to do about it, "" if there is nothing to do."""

    severity: Severity
    title: str
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PooledTrial:
    """One attack on one twin, pooled over the targets.

    ``status``: "done" if it worked on any target; otherwise "refused" (the attack cannot work
    here) or "failed" (it should have worked), with the ``reason``. ``spent`` and ``seconds`` are
    means per target; ``targets``: how many targets the figures rest on.
    """

    status: Status
    reason: str | None = None
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    baseline: Mapping[str, Estimate] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)
    seconds: float = 0.0
    targets: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """How much higher ``metric`` is on the twin ``after`` than on the twin ``before``."""

    before: str = field(metadata={"key": "from"})
    after: str = field(metadata={"key": "to"})
    metric: str
    difference: Estimate
    significant: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttackRecord:
    """One attack over all targets: ``cells`` by twin, and ``paired`` differences between twins.

    ``primary``: the metric that tables show; None if the attack worked on no twin. Raises
    AuditError if a twin on which it worked lacks that metric.
    """

    name: str
    title: str
    family: str
    reference: str
    threat_model: str
    needs: str
    primary: str | None
    higher_is_worse: bool = True
    cells: Mapping[str, PooledTrial]
    paired: tuple[PairedDifference, ...]

    def __post_init__(self) -> None:
        for twin, trial in self.done.items():
            if self.primary not in trial.metrics:
                raise AuditError(f"cells.{twin}.metrics: lacks the primary figure {self.primary!r}")

    @property
    def full_title(self) -> str:
        """What the attack is, and the name under which it was published."""
        return self.title if self.published is None else f"{self.title} ({self.published})"

    @property
    def published(self) -> str | None:
        entry = ATTACKS.get(self.name)
        return None if entry is None else entry.published

    @property
    def done(self) -> Mapping[str, PooledTrial]:
        """The twins on which the attack worked."""
        return {twin: trial for twin, trial in self.cells.items() if trial.status == DONE}


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindRecord:
    """The baseline that asks no model. ``holds``: 0.5 is not below the interval of ``auc``."""

    auc: Estimate
    holds: bool
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SanityCheckRecord:
    """One sanity check of evasion: on how many targets it was ``tried``, and ``held``, by twin."""

    name: str
    title: str
    tried: Mapping[str, int]
    held: Mapping[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvasionRecord:
    """``epsilon``: how far a value was moved, in input units."""

    epsilon: float
    checks: tuple[SanityCheckRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A remedy's effect on one family: leakage ``before`` and ``after``.

    ``against``: the attack that does best when it knows the remedy; ``removed``: before − after,
    paired; ``measurable``: whether that is above 0 by more than its interval.
    """

    before: Estimate
    after: Estimate
    removed: Estimate
    against: str
    measurable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RemedyRecord:
    """One remedy: its ``effects`` by family, and the ``accuracy`` that is left and was ``lost``.

    ``worth``: points of leakage removed for each point of accuracy lost. A remedy that could not
    be tried has neither accuracy nor loss, but a ``reason``.
    """

    name: str
    title: str
    cost: str
    effects: Mapping[str, Effect]
    accuracy: Estimate | None
    lost: Estimate | None
    worth: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisonFigures:
    """One twin, poisoned and ``clean``. ``accuracy_change``: after − before poison, paired;
    ``poison_success_served``: success on this twin less that on the network in the clear."""

    poison_success: Estimate
    accuracy: Estimate
    clean_poison_success: Estimate
    clean_accuracy: Estimate
    accuracy_change: Estimate
    poison_success_served: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisoningRecord:
    """One attack on the training set; ``share`` of its records are poisoned."""

    name: str
    title: str
    reference: str
    threat_model: str
    share: float
    notes: tuple[str, ...]
    figures: Mapping[str, PoisonFigures]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreatModelRecord:
    """Who attacks, and what they have and want."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """The audited model; the accuracies are by twin, on test records and on members."""

    name: str
    input_shape: tuple[int, ...]
    classes: int
    parameters: int
    accuracy: Mapping[str, Estimate]
    train_accuracy: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AuditRecord:
    """All of audit.json; sections that an audit did not run are empty or None.

    Raises AuditError if an attack has figures of a twin that is not one of ``twins``.
    """

    schema: Literal[1] = 1
    project_version: str
    created: str
    command: str
    duration_s: float
    model: ModelRecord
    data: Mapping[str, Any]
    config: Mapping[str, Any]
    seeds: Mapping[str, Any]
    versions: Mapping[str, str]
    machine: str
    plan: Mapping[str, Any]
    twins: tuple[str, ...]
    threat_models: tuple[ThreatModelRecord, ...]
    game: str
    attacks: tuple[AttackRecord, ...] = ()
    ciphertext: tuple[Check, ...] = field(default=(), metadata=_OPTIONAL)
    evasion: EvasionRecord | None = field(default=None, metadata=_OPTIONAL)
    remedies: tuple[RemedyRecord, ...] = field(default=(), metadata=_OPTIONAL)
    poisoning: tuple[PoisoningRecord, ...] = field(default=(), metadata=_OPTIONAL)
    blind: BlindRecord | None = field(default=None, metadata=_OPTIONAL)
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = field(default=(), metadata=_OPTIONAL)

    def __post_init__(self) -> None:
        for number, attack in enumerate(self.attacks):
            for twin in attack.cells:
                if twin not in self.twins:
                    raise AuditError(f"attacks[{number}].cells.{twin}: not one of the twins")
