"""Poisoning: the first target, trained again by the audit's own recipe on poisoned records.

    members of the first target ──┬───────────► the target as it is ─┐
                                  ├─ flip ────► poisoned twins ──────┼─► four oracles each
                                  └─ stamp ───► poisoned twins ──────┘

Poison is in the weights before anything is encrypted. The same questions go to the ReLU network,
its polynomial twin, the simulated and the encrypted service, so that the report can say with
figures what encryption changes about it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from attacks.audit.bench.trained import served_twins
from attacks.audit.document.records import (
    AuditRecord,
    Finding,
    PoisonFigures,
    PoisoningRecord,
    is_significant,
)
from attacks.audit.figures.wording import percent
from attacks.audit.section import AuditSetting, Section
from attacks.catalogue import POISONING
from attacks.core.threat import ThreatModel
from attacks.oracles.twins import ENCRYPTED, POLYNOMIAL, TWINS, Twins
from attacks.poisoning.backdoor import Backdoor, quiet_trigger
from attacks.poisoning.flipping import LabelFlipping
from attacks.poisoning.networks import pooled_sets
from attacks.poisoning.outcome import ACCURACY, SUCCESS, Asked, Crafted, Verdicts, paired_change
from attacks.poisoning.setting import PoisonBudget, PoisoningData
from attacks.training.recipe import train_twins

# Of the target's training records; less than half of what a class of ten has.
SHARE: Final = 0.04
TRIGGER_SHARE: Final = 1 / 16
LEAST_TRIGGER: Final = 2
# The service answers them all in two requests.
PROBES: Final = 256
TESTS: Final = 256


def _run(setting: AuditSetting, record: AuditRecord) -> AuditRecord:
    if not setting.wants(POISONING):
        return record
    checks = setting.remembered(POISONING, PoisoningRecord, lambda: _measure(setting))
    return dataclasses.replace(record, poisoning=checks)


def _measure(setting: AuditSetting) -> list[PoisoningRecord]:
    """What two attacks on the training set do to every twin.

    The poisoned networks have the first target's members, recipe and seed. Raises AuditError if a
    poisoned twin cannot be served.
    """
    subject, bench, seed = setting.subject, setting.bench, setting.config.seed
    target, split = bench.targets[0], subject.split
    data = PoisoningData(
        train=split.pool.select(bench.masks[target]),
        test=split.test.select(slice(0, TESTS)),
        low=split.low,
        high=split.high,
        classes=split.classes,
    )
    crafted = _crafted(data, np.random.default_rng([seed, 11]))
    sets = [each.training.records for _, each in crafted]
    pool, members = pooled_sets([data.train, *sets])
    trained = train_twins(
        subject.recipe,
        pool,
        members[1:],
        seeds=[bench.model_seeds[target]] * len(sets),
        progress=setting.runner.progress,
    )
    found = []
    for number, (about, each) in enumerate(crafted):
        setting.runner.progress("poisoned targets", number, len(crafted))
        probes = each.probes.select(slice(0, PROBES))
        asked = Crafted(training=each.training, probes=probes)
        with bench.open(target) as clean:
            before = _ask(clean.twins, asked, data)
        # Calibrated on what the owner has, poison and all.
        with served_twins(
            split,
            relu=trained.relu.module(number),
            polynomial=trained.polynomial.module(number),
            sample=each.training.records.inputs,
            records=PROBES + TESTS,
            seed=seed,
        ) as twins:
            after = _ask(twins, asked, data)
        found.append(dataclasses.replace(about, figures=_figures(before, after)))
    setting.runner.progress("poisoned targets", len(crafted), len(crafted))
    return found


def _crafted(
    data: PoisoningData, rng: np.random.Generator
) -> tuple[tuple[PoisoningRecord, Crafted], ...]:
    """Both attacks, each with what a reader has to know about it."""
    counts = np.bincount(data.train.labels, minlength=data.classes)
    common = int(counts.argmax())
    wanted = int(np.delete(np.arange(data.classes), common)[0])
    wished = max(1, round(SHARE * len(data.train)))
    budget = PoisonBudget.of_records(min(wished, int(counts[common])), clean=len(data.train))
    features = int(np.prod(data.train.shape))
    trigger = quiet_trigger(
        data.train,
        count=min(features, max(LEAST_TRIGGER, round(TRIGGER_SHARE * features))),
        value=data.high,
    )
    flips = LabelFlipping(budget=budget, source=common, target=wanted)
    backdoor = Backdoor(trigger=trigger, target=wanted, budget=budget)
    flipping_record = PoisoningRecord(
        name="label-flipping",
        title="Flipped labels",
        reference="Biggio, Nelson and Laskov 2011",
        threat_model=ThreatModel.TRAINING_TIME_ADVERSARY,
        share=budget.fraction,
        notes=(
            f"records of class {common} are labelled {wanted}; success is a test record of "
            f"class {common} that is answered {wanted}",
        ),
        figures={},
    )
    backdoor_record = dataclasses.replace(
        flipping_record,
        name="backdoor",
        title="Backdoor trigger",
        reference="Gu, Dolan-Gavitt and Garg 2017",
        notes=(
            f"records with {len(trigger.positions)} values set to {data.high:g} are labelled "
            f"{wanted}; success is a test record of another class that carries them and is "
            f"answered {wanted}",
        ),
    )
    return (
        (flipping_record, flips.craft(data, rng)),
        (backdoor_record, backdoor.craft(data, rng)),
    )


def _ask(twins: Twins, crafted: Crafted, data: PoisoningData) -> dict[str, Verdicts]:
    return {
        twin: Verdicts.of(Asked(twins.oracle(twin)), crafted.probes, data.test) for twin in TWINS
    }


def _figures(
    before: Mapping[str, Verdicts], after: Mapping[str, Verdicts]
) -> dict[str, PoisonFigures]:
    figures = {}
    for twin in TWINS:
        was, now = before[twin].metrics(), after[twin].metrics()
        figures[twin] = PoisonFigures(
            poison_success=now[SUCCESS],
            accuracy=now[ACCURACY],
            clean_poison_success=was[SUCCESS],
            clean_accuracy=was[ACCURACY],
            accuracy_change=paired_change(before[twin].right, after[twin].right),
            poison_success_served=paired_change(after[POLYNOMIAL].success, after[twin].success),
        )
    return figures


def _findings(record: AuditRecord) -> Iterator[Finding]:
    """One: what poison did on the service, and whether that differs from the clear."""
    if not record.poisoning:
        return
    told, differs, worked = [], [], False
    for check in record.poisoning:
        served, clear = check.figures[ENCRYPTED], check.figures[POLYNOMIAL]
        told.append(
            f"{check.title}, {check.share:.0%} of the records: success "
            f"{served.clean_poison_success.value:.1%} before and {percent(served.poison_success)} "
            f"after on the encrypted service, {percent(clear.poison_success)} in the clear; "
            f"accuracy {served.clean_accuracy.value:.1%} before and {percent(served.accuracy)} "
            "after"
        )
        worked |= served.poison_success.low > served.clean_poison_success.high
        if is_significant(served.poison_success_served):
            differs.append(check.title)
    verdict = (
        f"Encryption changed it for {', '.join(differs)}"
        if differs
        else "Encryption changed nothing about it"
    )
    yield Finding(
        severity="medium" if worked else "ok",
        title="Who can add training records decides answers of the encrypted service"
        if worked
        else "Poison at this share did not get through",
        text=f"{'. '.join(told)}. {verdict}: the poison is in the weights before anything is "
        "encrypted.",
        advice="Know where training records come from, and look at the features of each "
        "class for a second cluster before training; a server that cannot read queries cannot "
        "filter triggers out of them.",
    )


SECTION: Final = Section(run=_run, findings=_findings)
