"""The report's charts: log-log ROC of membership, fidelity against queries of extraction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attacks.report.charts import Axis, Level, Series, line_chart
from attacks.report.markup import Markup, join, tag
from attacks.report.numbers import twin_name

# Rates below this are off the chart: no audit has that many records.
_LEAST_RATE = 1e-4


def curve_section(audit: Mapping[str, Any]) -> Markup | None:
    """One chart an attack, all twins in it; None if no attack drew a curve."""
    charts = []
    for attack in audit["attacks"]:
        done = {t: c for t, c in attack["cells"].items() if c["status"] == "done"}
        rocs = {
            t: c["curves"]["roc"] for t, c in done.items() if c["curves"].get("roc", {}).get("x")
        }
        fidelities = {
            t: c["curves"]["fidelity"]
            for t, c in done.items()
            if c["curves"].get("fidelity", {}).get("x")
        }
        slots = {twin: slot for slot, twin in enumerate(audit["twins"])}
        if rocs:
            charts.append(_roc(attack["title"], rocs, slots))
        if fidelities:
            charts.append(_fidelity(attack["title"], fidelities, slots, _baselines(done)))
    if not charts:
        return None
    note = tag(
        "p",
        {"class": "soft"},
        "Bands are 95 % intervals at each point. In the ROC both axes are logarithmic, since an "
        "accusation is worth something only where few of the innocent are accused; the shaded "
        "part has too few records to say anything. Twins that agree lie on top of each other.",
    )
    return join([note, tag("div", {"class": "charts"}, *charts)])


def _roc(title: str, curves: Mapping[str, Mapping[str, Any]], slots: Mapping[str, int]) -> Markup:
    lowest = min(min(curve["x"]) for curve in curves.values())
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
    curves: Mapping[str, Mapping[str, Any]],
    slots: Mapping[str, int],
    baselines: Sequence[float],
) -> Markup:
    values = [x for curve in curves.values() for x in curve["x"]]
    positive = [x for x in values if x > 0] or [1.0]
    low, high = min(positive), max(positive)
    if high <= low:
        low, high = low / 2, high * 2
    wide = high / low > 30
    floor = min([*(v for c in curves.values() for v in c["low"]), *baselines, 0.9])
    levels = [Level(name="without queries", value=min(baselines))] if baselines else []
    return line_chart(
        title=f"{title}: fidelity against queries",
        description=f"Share of equal labels against records queried for {_listed(curves)}.",
        x=Axis(label="records queried", low=low if wide else 0.0, high=high, log=wide),
        y=Axis(label="fidelity, test records", low=max(0.0, floor - 0.05), high=1.0, percent=True),
        series=_series(curves, slots),
        levels=levels,
    )


def _series(curves: Mapping[str, Mapping[str, Any]], slots: Mapping[str, int]) -> list[Series]:
    return [
        Series(
            name=twin_name(twin),
            x=curve["x"],
            y=curve["y"],
            low=curve["low"],
            high=curve["high"],
            slot=slots.get(twin, 0),
        )
        for twin, curve in curves.items()
    ]


def _baselines(done: Mapping[str, Mapping[str, Any]]) -> list[float]:
    found = [cell["baseline"].get("fidelity_test") for cell in done.values()]
    return [float(estimate["value"]) for estimate in found if estimate is not None]


def _listed(curves: Mapping[str, Any]) -> str:
    return ", ".join(twin_name(twin) for twin in curves)
