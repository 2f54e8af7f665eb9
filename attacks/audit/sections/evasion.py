"""The audit's attacks by evasion: every one on every twin, sanity checks, and what they mean.

    targets, packed for few records a request ──► attacks, checks ──► cells
    cells ──► rows of the paired table      checks ──► a section      both ──► findings

high    a client without the weights has half of the records taken for something else, or more, at
        the lower end of the interval
medium  clients fool it more often than noise of the same size does, beyond the intervals; or a
        sanity check fails, which makes the figures too kind to the model
low     how far the three networks differ
ok      no client fooled it more than noise does; the checks hold
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from attacks.audit.bench.bench import TrainedBench
from attacks.audit.bench.cell import DONE, Cell
from attacks.audit.bench.cells import run_cells
from attacks.audit.bench.state import CellName, StateStore
from attacks.audit.config import AuditConfig
from attacks.audit.figures.findings import Finding, Row, percent
from attacks.catalogue import ATTACKS
from attacks.core.entry import ANYTHING, EVASION, Allowance, CatalogueEntry
from attacks.core.intervals import Estimate
from attacks.core.threat import ThreatModel
from attacks.evasion.checks import TELLING, TITLES, SanityChecks
from attacks.oracles.twins import ENCRYPTED, POLYNOMIAL, RELU
from attacks.progress import Progress

CHECKS: Final = "evasion-checks"
# One request for each question about all records; a larger one would be mostly empty.
PACKED: Final = 64
SERIOUS: Final = 0.5


def _checks(allowance: Allowance) -> SanityChecks:
    del allowance
    return SanityChecks(queries=60)


CHECKS_ENTRY: Final = CatalogueEntry(
    title="Sanity checks of evasion",
    family=EVASION,
    reference="Carlini et al. 2019",
    threat_model=ThreatModel.WEIGHT_HOLDER,
    needs=ANYTHING,
    build=_checks,
)


def evasion_cells(
    bench: TrainedBench,
    chosen: Mapping[str, CatalogueEntry],
    store: StateStore,
    config: AuditConfig,
    *,
    progress: Progress | None,
    tell: Callable[[str], None] | None,
) -> dict[CellName, Cell]:
    """A cell for each attack of the family that was chosen, and one for the checks, on each twin
    of each target; none if no attack was chosen.

    Answers are not recorded: a cell takes seconds and is asked anew if it was interrupted.
    """
    attacks = {name: entry for name, entry in chosen.items() if entry.family == EVASION}
    if not attacks:
        return {}
    # The checks are the evaluator's: what they ask is no attacker's.
    budgets = {**dict.fromkeys(attacks, config.evasion_budget), CHECKS: 10**9}
    return run_cells(
        bench.packed(min(PACKED, config.packed_for)),
        {**attacks, CHECKS: CHECKS_ENTRY},
        store,
        budgets=budgets,
        seed=config.seed,
        recorded=frozenset(),
        progress=progress,
        tell=tell,
    )


def check_rows(
    cells: Mapping[CellName, Cell], twins: Sequence[str], targets: Sequence[int]
) -> list[dict[str, Any]]:
    """One for each check: name, title, ``held`` and ``tried`` by twin, as numbers of targets,
    and notes on those that failed; none without cells."""
    done = {
        twin: [
            cells[name]
            for target in targets
            if (name := CellName(twin=twin, attack=CHECKS, target=target)) in cells
            and cells[name].status == DONE
        ]
        for twin in twins
    }
    if not any(done.values()):
        return []
    rows = []
    for check, title in TITLES.items():
        tried = {twin: [c for c in found if check in c.metrics] for twin, found in done.items()}
        rows.append(
            {
                "name": check,
                "title": title,
                "tried": {twin: len(found) for twin, found in tried.items()},
                "held": {
                    twin: sum(cell.metrics[check].value == 1.0 for cell in found)
                    for twin, found in tried.items()
                },
                "notes": [
                    f"{twin}: {note.partition(': ')[2]}"
                    for twin, found in tried.items()
                    for cell in found
                    for note in cell.notes
                    if note.startswith(f"{check}: ")
                ],
            }
        )
    return rows


def evasion_findings(
    rows: Sequence[Row], checks: Sequence[Mapping[str, Any]], *, epsilon: float
) -> list[Finding]:
    """What evasion means for the served model; nothing if no attack of the family was run."""
    mine = [row for row in rows if row.family == EVASION]
    found = []
    served = [row for row in mine if _done(row, ENCRYPTED)]
    asking = [
        row for row in served if ATTACKS[row.name].threat_model == ThreatModel.MALICIOUS_CLIENT
    ]
    if asking:
        found.append(_fooled(asking, served, epsilon))
    found += _compared(mine)
    if checks:
        found.append(_sound(checks))
    return found


def _fooled(asking: Sequence[Row], served: Sequence[Row], epsilon: float) -> Finding:
    best = max(asking, key=lambda row: _success(row, ENCRYPTED).low)
    cell = best.cells[ENCRYPTED]
    success, noise = cell.metrics["success"], cell.baseline["success"]
    holders = [row for row in served if ATTACKS[row.name].threat_model == ThreatModel.WEIGHT_HOLDER]
    worst = max(holders, key=lambda row: _success(row, ENCRYPTED).value, default=None)
    held = (
        ""
        if worst is None
        else f" Who holds the weights fools {percent(_success(worst, ENCRYPTED))}."
    )
    text = (
        f"With changes of up to {epsilon:.3g} in a value, {best.title.lower()} had "
        f"{percent(success)} of the records that the encrypted service labels right taken for "
        f"something else, with {cell.spent.records:,} records asked; random changes of that size "
        f"do so with {percent(noise)}.{held}"
    )
    advice = (
        "Where a wrong label does harm, train on adversarial examples or smooth the model, and let "
        "clients filter what they ask: the server cannot see it."
    )
    if success.low >= SERIOUS and success.low > noise.high:
        title = "A client can craft inputs that the encrypted service gets wrong"
        return Finding(severity="high", title=title, text=text, advice=advice)
    if success.low > noise.high:
        title = "A client can craft some inputs that the encrypted service gets wrong"
        return Finding(severity="medium", title=title, text=text, advice=advice)
    return Finding(
        severity="ok",
        title="No client fooled the service more than random changes do",
        text=text,
        advice="More queries and a larger epsilon make these attacks stronger.",
    )


def _compared(rows: Sequence[Row]) -> list[Finding]:
    """ReLU, polynomial and served, at equal budget."""
    twins = (RELU, POLYNOMIAL, ENCRYPTED)
    common = [row for row in rows if all(_done(row, twin) for twin in twins)]
    if not common:
        return []
    listed = "; ".join(
        f"{row.title.lower()} {' / '.join(f'{_success(row, twin).value:.0%}' for twin in twins)}"
        for row in common
    )
    return [
        Finding(
            severity="low",
            title="How easily each network is fooled, at equal budget",
            text="Records taken for something else by the ReLU original, its polynomial twin and "
            f"the encrypted service: {listed}.",
        )
    ]


def _sound(checks: Sequence[Mapping[str, Any]]) -> Finding:
    failed = [check for check in checks if sum(check["held"].values()) < _tried(check)]
    if not failed:
        return Finding(
            severity="ok",
            title="The sanity checks of evasion hold",
            text=f"{len(checks)} checks on every twin: more effort is never weaker, gradients are "
            "worth more than queries, and with no bound every record falls.",
        )
    masked = any(check["name"] in TELLING for check in failed)
    listed = "; ".join(
        f"{check['title'].lower()} fails on {_tried(check) - sum(check['held'].values())} of "
        f"{_tried(check)} ({check['notes'][0]})"
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


def _tried(check: Mapping[str, Any]) -> int:
    return int(sum(check["tried"].values()))


def _done(row: Row, twin: str) -> bool:
    return twin in row.cells and row.cells[twin].status == DONE


def _success(row: Row, twin: str) -> Estimate:
    return row.cells[twin].metrics["success"]
