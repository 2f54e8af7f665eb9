"""Evasion: can a client make inputs that the model gets wrong, and are the attacks sound?

    targets, packed for few records a request ──► attacks, checks ──► trials
    attacks ──► the paired table      checks ──► a section      both ──► findings

high    a client without the weights has half of the records taken for something else, or more, at
        the lower end of the interval
medium  clients fool it more often than noise of the same size does, beyond the intervals; or a
        sanity check fails, which makes the figures too kind to the model
low     how far the three networks differ
ok      no client fooled it more than noise does; the checks hold
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from attacks.audit.bench.state import TrialName
from attacks.audit.bench.trained import epsilon_for
from attacks.audit.bench.trial import Trial
from attacks.audit.document.records import (
    DONE,
    AttackRecord,
    AuditRecord,
    EvasionRecord,
    Finding,
    SanityCheckRecord,
)
from attacks.audit.figures.wording import percent, within
from attacks.audit.section import UNLIMITED, AuditSetting, Section
from attacks.core.entry import ANYTHING, EVASION, CatalogueEntry
from attacks.core.intervals import Estimate
from attacks.core.threat import ThreatModel
from attacks.evasion.checks import TELLING, TITLES, SanityChecks
from attacks.oracles.twins import ENCRYPTED, POLYNOMIAL, RELU

CHECKS: Final = "evasion-checks"
# One request for each question about all records; a larger one would be mostly empty.
PACKED: Final = 64
SERIOUS: Final = 0.5
COMPARED: Final = (RELU, POLYNOMIAL, ENCRYPTED)


CHECKS_ENTRY: Final = CatalogueEntry(
    title="Sanity checks of evasion",
    family=EVASION,
    reference="Carlini et al. 2019",
    threat_model=ThreatModel.WEIGHT_HOLDER,
    needs=ANYTHING,
    build=lambda _: SanityChecks(queries=60),
)


def _run(setting: AuditSetting, record: AuditRecord) -> AuditRecord:
    attacks = setting.of_family(EVASION)
    if not attacks:
        return record
    trials = evasion_trials(setting, attacks)
    record = setting.with_attacks(record, setting.bench, attacks, trials)
    evasion = EvasionRecord(
        epsilon=epsilon_for(setting.config, setting.subject.split),
        checks=check_records(trials, record.twins, setting.bench.targets),
    )
    return dataclasses.replace(record, evasion=evasion)


def evasion_trials(
    setting: AuditSetting, attacks: Mapping[str, CatalogueEntry]
) -> dict[TrialName, Trial]:
    """One for each of ``attacks``, and one for the checks, on each twin of each target.

    Answers are not recorded: a trial takes seconds and is asked anew if it was interrupted.
    """
    config = setting.config
    return setting.runner.run(
        setting.bench.packed(min(PACKED, config.packed_for)),
        {**attacks, CHECKS: CHECKS_ENTRY},
        budgets={**dict.fromkeys(attacks, config.evasion_budget), CHECKS: UNLIMITED},
    )


def check_records(
    trials: Mapping[TrialName, Trial], twins: Sequence[str], targets: Sequence[int]
) -> tuple[SanityCheckRecord, ...]:
    """One for each check, with notes on those that failed; none if the checks never ran."""
    done = {
        twin: [
            trials[name]
            for target in targets
            if (name := TrialName(twin=twin, attack=CHECKS, target=target)) in trials
            and trials[name].status == DONE
        ]
        for twin in twins
    }
    if not any(done.values()):
        return ()
    tried = {
        check: {twin: [t for t in found if check in t.metrics] for twin, found in done.items()}
        for check in TITLES
    }
    return tuple(
        SanityCheckRecord(
            name=check,
            title=TITLES[check],
            tried={twin: len(found) for twin, found in by_twin.items()},
            held={
                twin: sum(trial.metrics[check].value == 1.0 for trial in found)
                for twin, found in by_twin.items()
            },
            notes=tuple(
                f"{twin}: {note.partition(': ')[2]}"
                for twin, found in by_twin.items()
                for trial in found
                for note in trial.notes
                if note.startswith(f"{check}: ")
            ),
        )
        for check, by_twin in tried.items()
    )


def _findings(record: AuditRecord) -> Iterator[Finding]:
    if record.evasion is None:
        return
    attacks = [attack for attack in record.attacks if attack.family == EVASION]
    served = [attack for attack in attacks if ENCRYPTED in attack.done]
    asking = [attack for attack in served if attack.threat_model == ThreatModel.MALICIOUS_CLIENT]
    if asking:
        yield _fooled(asking, served, record.evasion.epsilon)
    common = [attack for attack in attacks if set(COMPARED) <= attack.done.keys()]
    if common:
        yield _compared(common)
    if record.evasion.checks:
        yield _sound(record.evasion.checks)


def _fooled(
    asking: Sequence[AttackRecord], served: Sequence[AttackRecord], epsilon: float
) -> Finding:
    best = max(asking, key=lambda attack: _success(attack, ENCRYPTED).low)
    trial = best.cells[ENCRYPTED]
    success, noise = trial.metrics["success"], trial.baseline["success"]
    holders = [attack for attack in served if attack.threat_model == ThreatModel.WEIGHT_HOLDER]
    worst = max(
        (_success(attack, ENCRYPTED) for attack in holders), key=lambda e: e.value, default=None
    )
    held = "" if worst is None else f" Who holds the weights fools {percent(worst)}."
    text = (
        f"With changes of up to {epsilon:.3g} in a value, {within(best)} had "
        f"{percent(success)} of the records that the encrypted service labels right taken for "
        f"something else, with {trial.spent.records:,} records asked; random changes of that size "
        f"do so with {percent(noise)}.{held}"
    )
    advice = (
        "Where a wrong label does harm, train on adversarial examples or smooth the model, and let "
        "clients filter what they ask: the server cannot see it."
    )
    if success.low > noise.high:
        serious = success.low >= SERIOUS
        return Finding(
            severity="high" if serious else "medium",
            title=f"A client can craft {'' if serious else 'some '}inputs that the encrypted "
            "service gets wrong",
            text=text,
            advice=advice,
        )
    return Finding(
        severity="ok",
        title="No client fooled the service more than random changes do",
        text=text,
        advice="More queries and a larger epsilon make these attacks stronger.",
    )


def _compared(attacks: Sequence[AttackRecord]) -> Finding:
    listed = "; ".join(
        f"{within(attack)} {' / '.join(f'{_success(attack, t).value:.0%}' for t in COMPARED)}"
        for attack in attacks
    )
    return Finding(
        severity="low",
        title="How easily each network is fooled, at equal budget",
        text="Records taken for something else by the ReLU original, its polynomial twin and "
        f"the encrypted service: {listed}.",
    )


def _sound(checks: Sequence[SanityCheckRecord]) -> Finding:
    failed = [check for check in checks if _held(check) < _tried(check)]
    if not failed:
        return Finding(
            severity="ok",
            title="The sanity checks of evasion hold",
            text=f"{len(checks)} checks on every twin: more effort is never weaker, gradients are "
            "worth more than queries, and with no bound every record falls.",
        )
    masked = any(check.name in TELLING for check in failed)
    listed = "; ".join(
        f"{check.title.lower()} fails on {_tried(check) - _held(check)} of {_tried(check)} "
        f"({check.notes[0]})"
        for check in failed
    )
    return Finding(
        severity="medium",
        title="The gradient is masked: evasion figures are too kind to the model"
        if masked
        else "A sanity check of evasion fails",
        text=f"{listed}.",
        advice="Trust the attacks that only ask, give them a larger budget, and attack through a "
        "stolen substitute; a model that hides its gradient is not robust.",
    )


def _tried(check: SanityCheckRecord) -> int:
    return sum(check.tried.values())


def _held(check: SanityCheckRecord) -> int:
    return sum(check.held.values())


def _success(attack: AttackRecord, twin: str) -> Estimate:
    return attack.cells[twin].metrics["success"]


SECTION: Final = Section(run=_run, findings=_findings)
