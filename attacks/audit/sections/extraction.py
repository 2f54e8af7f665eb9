"""Extraction: can a client copy the model?

high    the best attack's copy agrees with the model on at least 95 % of the test records, at the
        lower end of the interval, and more often than an adversary does who asks nothing
medium  it agrees more often than that adversary, beyond the intervals
ok      no attack does better than asking nothing
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from attacks.audit.document.records import AttackRecord, AuditRecord, Finding, PooledTrial
from attacks.audit.figures.wording import percent, requests
from attacks.audit.section import AuditSetting, Section
from attacks.core.entry import EXTRACTION
from attacks.oracles.twins import ENCRYPTED

COPIED: Final = 0.95
FIDELITIES: Final = ("fidelity_test", "fidelity_uniform")


def _run(setting: AuditSetting, record: AuditRecord) -> AuditRecord:
    attacks = setting.of_family(EXTRACTION)
    return setting.with_attacks(record, setting.bench, attacks, setting.answer_trials)


def _findings(record: AuditRecord) -> Iterator[Finding]:
    attacks = [a for a in record.attacks if a.family == EXTRACTION and ENCRYPTED in a.done]
    if attacks:
        yield _copied(max(attacks, key=_reach))


def _reach(attack: AttackRecord) -> float:
    metrics = attack.cells[ENCRYPTED].metrics
    return sum(metrics[name].low for name in FIDELITIES if name in metrics)


def _copied(best: AttackRecord) -> Finding:
    trial = best.cells[ENCRYPTED]
    fidelity, baseline = trial.metrics["fidelity_test"], trial.baseline.get("fidelity_test")
    # Where most records are easy, an adversary without queries agrees on the test records too;
    # uniform inputs then tell the copy from a guess.
    above = baseline is None or any(
        trial.metrics[name].low > trial.baseline[name].high
        for name in FIDELITIES
        if name in trial.metrics and name in trial.baseline
    )
    idle = "" if baseline is None else f"; without a single query it is {percent(baseline)}"
    bits = trial.metrics.get("logit_error_bits")
    exactly = (
        f" The copy's logits differ from the model's by at most 2^{-bits.value:.0f} on all "
        "records that were compared."
        if bits is not None and bits.value > 6
        else ""
    )
    text = (
        f"{best.full_title} asked {trial.spent.records:,} records in "
        f"{requests(trial.spent.requests)} of the encrypted service; what it stole gives the same "
        f"label on {percent(fidelity)} of the test records{idle}.{exactly}"
    )
    if above and fidelity.low >= COPIED:
        return Finding(
            severity="high",
            title="A client can copy the model through the encrypted service",
            text=text,
            advice="Count what a client asks in records, not in requests, since one ciphertext "
            f"carries many: {enough(trial):,} records sufficed. Whoever may ask that many holds "
            "the model: treat such clients as if you had sent them the weights.",
        )
    if above:
        return Finding(
            severity="medium",
            title="A client can imitate the model",
            text=text,
            advice="Limit the records a client may ask; more of them bring the copy closer, as "
            "the curve of fidelity against queries shows.",
        )
    return Finding(
        severity="ok",
        title="No extraction attack beat an adversary who asks nothing",
        text=text,
        advice="Repeat the audit with the budget that a client will really have.",
    )


def enough(trial: PooledTrial) -> int:
    """The smallest budget on the curve whose copy agrees on 95 %; all of it without a curve."""
    curve = trial.curves.get("fidelity")
    points = () if curve is None else zip(curve.x, curve.y, strict=True)
    return min((int(x) for x, y in points if y >= COPIED), default=trial.spent.records)


SECTION: Final = Section(run=_run, findings=_findings)
