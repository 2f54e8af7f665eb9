"""Charts: the ROC of membership attacks, and fidelity against queries of extraction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from attacks.audit.document.records import AuditRecord
from attacks.core.result import Curve
from attacks.report.charts import Axis, Series, line_chart
from attacks.report.markup import Markup, join, tag
from attacks.report.numbers import twin_name
from attacks.report.section import ReportSection
from attacks.report.tables import note

# Rates below this are off the chart: no audit has that many records.
_LEAST_RATE: Final = 1e-4
_INTRO: Final = (
    "Bands are 95 % intervals at each point. In the ROC both axes are logarithmic, since an "
    "accusation is worth something only where few of the innocent are accused; the shaded part "
    "has too few records to say anything. Twins that agree lie on top of each other."
)


def _draw(audit: AuditRecord) -> Markup | None:
    slots = {twin: slot for slot, twin in enumerate(audit.twins)}
    charts = []
    for attack in audit.attacks:
        rocs, fidelities = (
            {
                twin: trial.curves[name]
                for twin, trial in attack.done.items()
                if name in trial.curves and trial.curves[name].x
            }
            for name in ("roc", "fidelity")
        )
        idle = [
            t.baseline["fidelity_test"]
            for t in attack.done.values()
            if "fidelity_test" in t.baseline
        ]
        if rocs:
            charts.append(_roc(attack.full_title, rocs, slots))
        if fidelities:
            baselines = [estimate.value for estimate in idle if estimate is not None]
            charts.append(_fidelity(attack.full_title, fidelities, slots, baselines))
    if not charts:
        return None
    return join([note(_INTRO), tag("div", {"class": "charts"}, *charts)])


def _roc(title: str, curves: Mapping[str, Curve], slots: Mapping[str, int]) -> Markup:
    lowest = min(min(curve.x) for curve in curves.values())
    floor = max(min(lowest, 0.1), _LEAST_RATE)
    low = 10.0 ** -next(p for p in (1, 2, 3, 4) if 10.0**-p <= floor * 1.0001)
    return line_chart(
        title=f"{title}: ROC",
        description=f"True positive rate against false positive rate for {_listed(curves)}.",
        x=Axis(label="false positive rate", low=low, high=1.0, log=True, percent=True),
        y=Axis(label="true positive rate", low=low, high=1.0, log=True, percent=True),
        series=_series(curves, slots),
        diagonal=True,
        unsupported_below=lowest,
    )


def _fidelity(
    title: str,
    curves: Mapping[str, Curve],
    slots: Mapping[str, int],
    baselines: Sequence[float],
) -> Markup:
    values = [x for curve in curves.values() for x in curve.x]
    positive = [x for x in values if x > 0] or [1.0]
    low, high = min(positive), max(positive)
    if high <= low:
        low, high = low / 2, high * 2
    wide = high / low > 30
    floor = min([*(v for c in curves.values() for v in c.low), *baselines, 0.9])
    levels = {"without queries": min(baselines)} if baselines else {}
    return line_chart(
        title=f"{title}: fidelity against queries",
        description=f"Share of equal labels against records queried for {_listed(curves)}.",
        x=Axis(label="records queried", low=low if wide else 0.0, high=high, log=wide),
        y=Axis(label="fidelity, test records", low=max(0.0, floor - 0.05), high=1.0, percent=True),
        series=_series(curves, slots),
        levels=levels,
    )


def _series(curves: Mapping[str, Curve], slots: Mapping[str, int]) -> list[Series]:
    return [
        Series(name=twin_name(twin), curve=curve, slot=slots[twin])
        for twin, curve in curves.items()
    ]


def _listed(curves: Mapping[str, Curve]) -> str:
    return ", ".join(map(twin_name, curves))


SECTION: Final = ReportSection(key="curves", title="Curves", draw=_draw)
