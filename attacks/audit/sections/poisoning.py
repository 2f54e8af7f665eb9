"""The audit's poisoned targets: one network by the audit's own recipe, trained on poisoned records.

    members of the first target ──┬───────────► the target as it is ─┐
                                  ├─ flip ────► poisoned twins ──────┼─► four oracles each
                                  └─ stamp ───► poisoned twins ──────┘

Poison is in the weights before anything is encrypted. The same questions go to the ReLU network,
its polynomial twin, the simulated and the encrypted service, so that the report can say with
figures what encryption changes about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from attacks.audit.bench.bench import CALIBRATION, TrainedBench
from attacks.audit.bench.models import Subject
from attacks.audit.bench.state import CellName, StateStore
from attacks.audit.figures.findings import Finding
from attacks.catalogue import POISONING
from attacks.core.oracle import Oracle
from attacks.core.threat import ThreatModel
from attacks.oracles.twins import ENCRYPTED, POLYNOMIAL, TWINS, Twins
from attacks.poisoning.backdoor import Backdoor, quiet_trigger
from attacks.poisoning.flipping import LabelFlipping
from attacks.poisoning.networks import pooled_sets
from attacks.poisoning.outcome import ACCURACY, SUCCESS, Asked, Crafted, Verdicts, paired_change
from attacks.poisoning.setting import PoisonBudget, PoisoningData
from attacks.progress import Progress
from attacks.training.recipe import TrainedTwins, train_twins

# Of the target's training records; less than half of what a class of ten has.
SHARE: Final = 0.04
TRIGGER_SHARE: Final = 1 / 16
LEAST_TRIGGER: Final = 2
# The service answers them all in two requests.
PROBES: Final = 256
TESTS: Final = 256
_NAME: Final = CellName(twin=POISONING, attack="suite", target=0)
_Figures = dict[str, dict[str, Any]]


def poisoning_checks(
    subject: Subject,
    bench: TrainedBench,
    store: StateStore,
    *,
    seed: int,
    progress: Progress | None,
) -> list[dict[str, Any]]:
    """What two attacks on the training set do to every twin, as JSON, from the audit's state if it
    is there: name, title, reference, threat_model, share, notes and ``figures`` by twin, each with
    success and accuracy, before and after, and their paired changes.

    The poisoned networks have the first target's members, recipe and seed. Raises AuditError if a
    poisoned twin cannot be served.
    """
    saved = store.load(_NAME)
    if saved is not None:
        found: list[dict[str, Any]] = saved["checks"]
        return found
    target, rng = bench.targets[0], np.random.default_rng([seed, 11])
    data = _data(subject, bench, target)
    crafted = _crafted(data, rng)
    sets = [each.training.records for _, each in crafted]
    pool, members = pooled_sets([data.train, *sets])
    seeds = [bench.model_seeds[target]] * len(sets)
    trained = train_twins(subject.recipe, pool, members[1:], seeds=seeds, progress=progress)
    checks = []
    for number, (about, each) in enumerate(crafted):
        if progress is not None:
            progress("poisoned targets", number, len(crafted))
        probes = each.probes.select(slice(0, PROBES))
        asked = Crafted(training=each.training, probes=probes)
        with bench.open(target) as clean:
            before = _ask(clean.twins, asked, data)
        with _served(trained, number, each, subject, seed=seed) as twins:
            after = _ask(twins, asked, data)
        checks.append({**about, "figures": _figures(before, after)})
    if progress is not None:
        progress("poisoned targets", len(crafted), len(crafted))
    store.save(_NAME, {"checks": checks})
    return checks


def _data(subject: Subject, bench: TrainedBench, target: int) -> PoisoningData:
    split = subject.split
    return PoisoningData(
        train=split.pool.select(bench.masks[target]),
        test=split.test.select(slice(0, TESTS)),
        low=split.low,
        high=split.high,
        classes=split.classes,
    )


def _crafted(
    data: PoisoningData, rng: np.random.Generator
) -> tuple[tuple[dict[str, Any], Crafted], ...]:
    """Both attacks, with what a reader has to know about them."""
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
    return (
        (
            _about(
                "label-flipping",
                "Flipped labels",
                "Biggio, Nelson and Laskov 2011",
                f"records of class {common} are labelled {wanted}; success is a test record of "
                f"class {common} that is answered {wanted}",
                budget=budget,
            ),
            flips.craft(data, rng),
        ),
        (
            _about(
                "backdoor",
                "Backdoor trigger",
                "Gu, Dolan-Gavitt and Garg 2017",
                f"records with {len(trigger.positions)} values set to {data.high:g} are labelled "
                f"{wanted}; success is a test record of another class that carries them and is "
                f"answered {wanted}",
                budget=budget,
            ),
            backdoor.craft(data, rng),
        ),
    )


def _about(
    name: str, title: str, reference: str, note: str, *, budget: PoisonBudget
) -> dict[str, Any]:
    return {
        "name": name,
        "title": title,
        "reference": reference,
        "threat_model": ThreatModel.TRAINING_TIME_ADVERSARY,
        "share": budget.fraction,
        "notes": [note],
    }


def _served(
    trained: TrainedTwins, number: int, crafted: Crafted, subject: Subject, *, seed: int
) -> Twins:
    """The poisoned target in its four forms; calibrated on what its owner has, poison and all."""
    return Twins(
        relu=trained.relu.module(number),
        polynomial=trained.polynomial.module(number),
        sample=crafted.training.records.inputs[:CALIBRATION],
        records=PROBES + TESTS,
        low=subject.split.low,
        high=subject.split.high,
        seed=seed,
    )


def _ask(twins: Twins, crafted: Crafted, data: PoisoningData) -> dict[str, Verdicts]:
    found = {}
    for twin in TWINS:
        oracle: Oracle = twins.oracle(twin)
        found[twin] = Verdicts.of(Asked(oracle), crafted.probes, data.test)
    return found


def _figures(before: Mapping[str, Verdicts], after: Mapping[str, Verdicts]) -> _Figures:
    figures: _Figures = {}
    for twin in TWINS:
        was, now = before[twin].metrics(), after[twin].metrics()
        clear = after[POLYNOMIAL]
        figures[twin] = {
            SUCCESS: now[SUCCESS].to_json(),
            ACCURACY: now[ACCURACY].to_json(),
            f"clean_{SUCCESS}": was[SUCCESS].to_json(),
            f"clean_{ACCURACY}": was[ACCURACY].to_json(),
            f"{ACCURACY}_change": paired_change(before[twin].right, after[twin].right).to_json(),
            # Beside the polynomial network in the clear: what serving it changed.
            f"{SUCCESS}_served": paired_change(clear.success, after[twin].success).to_json(),
        }
    return figures


def poisoning_findings(checks: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """One finding: what poison did on the service, and whether that differs from the clear."""
    if not checks:
        return []
    told = []
    for check in checks:
        served, clear = check["figures"][ENCRYPTED], check["figures"][POLYNOMIAL]
        told.append(
            f"{check['title']}, {check['share']:.0%} of the records: success "
            f"{served[f'clean_{SUCCESS}']['value']:.1%} before and {_percent(served[SUCCESS])} "
            f"after on the encrypted service, {_percent(clear[SUCCESS])} in the clear; accuracy "
            f"{served[f'clean_{ACCURACY}']['value']:.1%} before and {_percent(served[ACCURACY])} "
            "after"
        )
    worked = any(
        check["figures"][ENCRYPTED][SUCCESS]["low"]
        > check["figures"][ENCRYPTED][f"clean_{SUCCESS}"]["high"]
        for check in checks
    )
    differs = [
        check["title"]
        for check in checks
        if not check["figures"][ENCRYPTED][f"{SUCCESS}_served"]["low"]
        <= 0
        <= check["figures"][ENCRYPTED][f"{SUCCESS}_served"]["high"]
    ]
    verdict = (
        f"Encryption changed it for {', '.join(differs)}"
        if differs
        else "Encryption changed nothing about it"
    )
    return [
        Finding(
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
    ]


def _percent(estimate: Mapping[str, Any]) -> str:
    return f"{estimate['value']:.1%} [{estimate['low']:.1%}, {estimate['high']:.1%}]"
