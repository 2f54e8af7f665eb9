"""What the figures mean, in plain words; every sentence follows from a figure by a stated rule.

high    a client can copy the model: an extraction attack's fidelity on test records is at
        least 95 % at the lower end of its interval, and above the baseline without queries;
        or members are told from others: AUC ≥ 0.6 or TPR at 1 % FPR ≥ 5 %, both at the lower
        end; or the blind baseline fails, which voids the membership figures
medium  the same in part: fidelity above the baseline, AUC above 0.5, beyond the intervals;
        or the polynomial twin leaks significantly more than the ReLU original
low     what this audit could not say: attacks refused or failed, disagreements
ok      what was tried and did not work, and what is protected by design
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from attacks.audit.bench.cell import DONE, FAILED, Cell
from attacks.audit.figures.pooling import is_significant
from attacks.audit.sections.blind import BlindFigure
from attacks.core.entry import EXTRACTION, MEMBERSHIP
from attacks.core.intervals import Estimate

COPIED: Final = 0.95
FIDELITIES: Final = ("fidelity_test", "fidelity_uniform")
TOLD_APART: Final = 0.6
TOLD_APART_AT_1_PERCENT: Final = 0.05
SEVERITIES: Final = ("high", "medium", "low", "ok")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """``severity``: one of SEVERITIES; ``advice``: what to do, "" for nothing."""

    severity: str
    title: str
    text: str
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How much higher ``metric`` is on the twin ``after`` than on ``before``."""

    before: str
    after: str
    metric: str
    value: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One attack over all targets: pooled cells by twin, and differences between twins."""

    name: str
    title: str
    family: str
    cells: Mapping[str, Cell]
    differences: Sequence[Difference]


def findings(
    rows: Sequence[Row],
    *,
    served: str,
    clear: str,
    original: str,
    accuracy: Mapping[str, Cell],
    blind: BlindFigure | None,
    notes: Sequence[str],
    more: Sequence[Finding] = (),
) -> tuple[Finding, ...]:
    """All findings, the worst first. ``served``, ``clear`` and ``original`` name the encrypted,
    the polynomial and the ReLU twin."""
    found: list[Finding] = []
    stealing = [row for row in rows if row.family == EXTRACTION and _ran(row, served)]
    guessing = [row for row in rows if row.family == MEMBERSHIP and _ran(row, served)]
    if stealing:
        found.append(_copied(stealing, served))
    if guessing and blind is not None:
        found.append(_told_apart(guessing, served, accuracy, blind))
    if blind is not None and not blind.holds:
        found.append(
            Finding(
                severity="high",
                title="The split leaks by itself",
                text=f"{blind.note[0].upper()}{blind.note[1:]}.",
                advice="Draw members and non-members from the same records at random.",
            )
        )
    if rows or not more:  # a suite of its own says itself what encryption changed
        found.append(_encryption(rows, clear, served))
    found += _replacement(rows, original, clear, accuracy)
    found += _gaps(rows, served)
    found += more
    found += [
        Finding(severity="low", title="About this model", text=_sentence(note)) for note in notes
    ]
    found.append(
        Finding(
            severity="ok",
            title="What encryption protects by design",
            text="Queries and answers travel and are computed on as ciphertexts: the server sees "
            "sizes and times, not records or predictions. This audit attacks the model through "
            "the client's side; the encryption itself is taken to be sound.",
        )
    )
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))


def _copied(rows: Sequence[Row], served: str) -> Finding:
    def reach(row: Row) -> float:
        metrics = row.cells[served].metrics
        return sum(metrics[name].low for name in FIDELITIES if name in metrics)

    best = max(rows, key=reach)
    cell = best.cells[served]
    fidelity, baseline = cell.metrics["fidelity_test"], cell.baseline.get("fidelity_test")
    # Where most records are easy, an attacker without queries agrees on the test records too;
    # uniform inputs then tell the copy from a guess.
    above = baseline is None or any(
        cell.metrics[name].low > cell.baseline[name].high
        for name in FIDELITIES
        if name in cell.metrics and name in cell.baseline
    )
    idle = "" if baseline is None else f"; without a single query it is {percent(baseline)}"
    bits = cell.metrics.get("logit_error_bits")
    exactly = (
        f" The copy's logits differ from the model's by at most 2^{-bits.value:.0f} on all "
        "records that were compared."
        if bits is not None and bits.value > 6
        else ""
    )
    text = (
        f"{best.title} asked {cell.spent.records:,} records in {requests(cell.spent.requests)} of "
        f"the encrypted service; what it stole gives the same label on {percent(fidelity)} of the "
        f"test records{idle}.{exactly}"
    )
    if above and fidelity.low >= COPIED:
        return Finding(
            severity="high",
            title="A client can copy the model through the encrypted service",
            text=text,
            advice="Count what a client asks in records, not in requests, since one ciphertext "
            f"carries many: {enough(cell):,} records sufficed. Whoever may ask that many holds the "
            "model: treat such clients as if you had sent them the weights.",
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
        title="No extraction attack beat an attacker who asks nothing",
        text=text,
        advice="Repeat the audit with the budget that a client will really have.",
    )


def _told_apart(
    rows: Sequence[Row], served: str, accuracy: Mapping[str, Cell], blind: BlindFigure
) -> Finding:
    best = max(rows, key=lambda row: row.cells[served].metrics["auc"].low)
    metrics = best.cells[served].metrics
    auc, rate = metrics["auc"], metrics.get("tpr_at_1pct")
    caught = (
        "" if rate is None else f", and finds {percent(rate)} of the members at 1 % false alarms"
    )
    text = f"The strongest attack, {best.title.lower()}, reaches AUC {auc}{caught}."
    gap = _gap(accuracy.get(served))
    advice = (
        f"{gap}Train with regularisation or fewer epochs until members are answered like others, "
        "or with differential privacy for a guarantee. Encryption cannot help here: the client "
        "decrypts the scores that the attack reads."
    )
    if not blind.holds:
        text += " The blind baseline fails, so this figure measures the split, not the model."
    if auc.low >= TOLD_APART or (rate is not None and rate.low >= TOLD_APART_AT_1_PERCENT):
        return Finding(
            severity="high",
            title="A client can tell who was in the training set",
            text=text,
            advice=advice,
        )
    if auc.low > 0.5:
        return Finding(
            severity="medium",
            title="Members can be told from others better than by chance",
            text=text,
            advice=advice,
        )
    return Finding(
        severity="ok",
        title="No membership attack did measurably better than a coin",
        text=text,
        advice="More targets and shadows narrow the intervals and lower the rates that can be "
        "reported.",
    )


def _gap(cell: Cell | None) -> str:
    if cell is None or cell.status != DONE:
        return ""
    train, test = cell.metrics["train_accuracy"].value, cell.metrics["accuracy"].value
    return f"The model is right on {train:.1%} of its members and {test:.1%} of other records. "


def _encryption(rows: Sequence[Row], clear: str, served: str) -> Finding:
    """What changed from the polynomial network in the clear to the encrypted service."""
    all_pairs = [
        (row, difference)
        for row in rows
        for difference in row.differences
        if (difference.before, difference.after) == (clear, served)
    ]
    if not all_pairs:
        return Finding(
            severity="low",
            title="Nothing says what encryption changed",
            text="No attack ran both on the polynomial network in the clear and on the encrypted "
            "service.",
        )
    changed = [(row, d) for row, d in all_pairs if is_significant(d.value)]
    compared = f"{len(all_pairs)} figures of {len({row.name for row, _ in all_pairs})} attacks"
    chance = f"about {0.05 * len(all_pairs):.1f} would differ by chance alone"
    if not changed:
        # Of each attack the figure that has least room: others of few targets say nothing.
        rooms: dict[str, float] = {}
        for row, d in all_pairs:
            room = max(-d.value.low, d.value.high)
            rooms[row.name] = min(room, rooms.get(row.name, math.inf))
        widest = max(rooms.values())
        return Finding(
            severity="low",
            title="Encryption changed nothing measurable about what clients learn",
            text=f"Of {compared}, none differs measurably between the polynomial network in the "
            f"clear and the encrypted service. For every attack there is a figure whose interval "
            f"leaves room for a change of {widest:.3g} at most.",
            advice="Encryption protects the client's data from the server. Protect the model from "
            "its clients as if it were not encrypted.",
        )
    listed = "; ".join(f"{row.title}: {_words(d)}" for row, d in changed[:4])
    return Finding(
        severity="low",
        title="Encryption changed some figures",
        text=f"Of {compared}, {len(changed)} changed beyond the interval between the polynomial "
        f"network in the clear and the encrypted service ({chance}): {listed}.",
    )


def _replacement(
    rows: Sequence[Row], original: str, clear: str, accuracy: Mapping[str, Cell]
) -> list[Finding]:
    """What the replacement of ReLUs by polynomials changed, one finding per family."""
    found = []
    for family, what in ((EXTRACTION, "to steal"), (MEMBERSHIP, "about its training set")):
        pairs = [
            (row, d)
            for row in rows
            if row.family == family
            for d in row.differences
            if (d.before, d.after) == (original, clear)
        ]
        if not pairs:
            continue
        worse = [(row, d) for row, d in pairs if d.value.low > 0]
        better = [(row, d) for row, d in pairs if d.value.high < 0]
        listed = "; ".join(f"{row.title}: {_words(d)}" for row, d in (worse or better)[:4])
        more = "easier to steal" if family == EXTRACTION else "more telling about its members"
        less = "harder to steal" if family == EXTRACTION else "less telling about its members"
        if worse:
            found.append(
                Finding(
                    severity="medium",
                    title=f"The polynomial twin is {more} than the ReLU original",
                    text=f"{len(worse)} of {len(pairs)} figures rose beyond their intervals when "
                    f"ReLUs were replaced, {len(better)} fell. {listed}.",
                    advice="This comes with the activations that encryption needs, not with "
                    "encryption; weigh it when choosing the architecture.",
                )
            )
        elif better:
            found.append(
                Finding(
                    severity="ok",
                    title=f"The polynomial twin is {less} than the ReLU original",
                    text=f"{len(better)} of {len(pairs)} figures fell beyond their intervals when "
                    f"ReLUs were replaced, none rose. {listed}.",
                )
            )
        else:
            found.append(
                Finding(
                    severity="ok",
                    title=f"Replacing ReLUs by polynomials changed nothing measurable {what}",
                    text=f"No figure changed beyond its interval ({len(pairs)} compared).",
                )
            )
    return found


def _gaps(rows: Sequence[Row], served: str) -> list[Finding]:
    refused = [row for row in rows if served in row.cells and row.cells[served].status != DONE]
    if not refused:
        return []
    reasons = "; ".join(
        f"{row.title}{' failed' if row.cells[served].status == FAILED else ''}: "
        f"{row.cells[served].reason}"
        for row in refused
    )
    return [
        Finding(
            severity="low",
            title=f"{len(refused)} of {len(rows)} attacks say nothing about the encrypted service",
            text=f"{reasons}.",
            advice="An attack that did not run is no evidence of safety.",
        )
    ]


def _ran(row: Row, twin: str) -> bool:
    return twin in row.cells and row.cells[twin].status == DONE


def enough(cell: Cell) -> int:
    """The smallest budget on the curve whose copy agrees on 95 %; all of it without a curve."""
    curve = cell.curves.get("fidelity")
    points = () if curve is None else zip(curve.x, curve.y, strict=True)
    return min((int(x) for x, y in points if y >= COPIED), default=cell.spent.records)


def percent(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"


def requests(count: int) -> str:
    return "one request" if count == 1 else f"{count:,} requests"


def _words(difference: Difference) -> str:
    return f"{difference.metric.replace('_', ' ')} {difference.value.value:+.3g} " + (
        f"[{difference.value.low:+.3g}, {difference.value.high:+.3g}]"
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
