"""The page: findings first, then the paired table, curves, cost, and how to repeat it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Final

from attacks.report.background import cost_section, repeat_section, threat_section
from attacks.report.check import check
from attacks.report.ciphertexts import ciphertext_section
from attacks.report.curves import curve_section
from attacks.report.evasion import evasion_section
from attacks.report.markup import Child, Markup, join, stylesheet, tag
from attacks.report.numbers import (
    difference_text,
    duration,
    interval_text,
    metric_name,
    moment,
    queries,
    twin_name,
    value_text,
)
from attacks.report.poisoning import poisoning_section
from attacks.report.remedies import remedy_section
from attacks.report.tables import folded, head_row, table

# Nothing is loaded, nothing runs: the page is text, its own style and inline drawings.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_SEVERITY_WORDS: Final = {"high": "HIGH", "medium": "MEDIUM", "low": "NOTE", "ok": "OK"}
_ORDER: Final = tuple(_SEVERITY_WORDS)


def render(audit: Mapping[str, Any]) -> str:
    """The whole page; every string of ``audit`` is treated as text. AuditError as in ``check``."""
    check(audit)
    sections = [
        ("findings", "Findings", _findings(audit)),
        ("remedies", "What to do", remedy_section(audit)),
        ("twins", "Every attack on every twin", _paired_table(audit)),
        ("differences", "What changed from twin to twin", _differences(audit)),
        ("evasion", "Is the evasion sound?", evasion_section(audit)),
        ("ciphertexts", "Attacks on ciphertexts", ciphertext_section(audit)),
        ("poisoning", "Poisoned training sets", poisoning_section(audit)),
        ("curves", "Curves", curve_section(audit)),
        ("figures", "All figures", _figures(audit)),
        ("cost", "What the attacks cost", cost_section(audit)),
        ("threats", "Threat model and game", threat_section(audit)),
        ("repeat", "How to repeat it", repeat_section(audit)),
    ]
    shown = [section for section in sections if section[2] is not None]
    links = [tag("li", {}, tag("a", {"href": f"#{key}"}, title)) for key, title, _ in shown]
    body = [
        tag("a", {"class": "skip", "href": "#findings"}, "Skip to the findings"),
        tag(
            "header",
            {},
            *_heading(audit),
            tag("nav", {"aria-label": "Sections"}, tag("ul", {}, *links)),
        ),
        tag(
            "main",
            {},
            *(
                tag("section", {"id": key}, tag("h2", {}, title), content)
                for key, title, content in shown
                if content is not None
            ),
        ),
        tag("footer", {}, f"he-infer {audit['project_version']}, {moment(audit['created'])}"),
    ]
    head = [
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("title", {}, f"Leakage audit of {audit['model']['name']}"),
        stylesheet(
            resources.files("attacks.report").joinpath("assets/report.css").read_text("utf-8")
        ),
    ]
    page = tag("html", {"lang": "en"}, tag("head", {}, *head), tag("body", {}, *body))
    return f"<!doctype html>\n{page.text}\n"


def _heading(audit: Mapping[str, Any]) -> list[Child]:
    model, data = audit["model"], audit["data"]
    severities = [finding["severity"] for finding in audit["findings"]]
    worst = min(severities, key=_ORDER.index, default="ok")
    if worst in ("low", "ok") and not audit["attacks"]:
        worst = "none"
    verdict = {
        "high": "What clients may learn about this model is serious: see the findings marked HIGH.",
        "medium": "Clients learn something about this model that they should not.",
        "low": "No attack of this audit got far; read what it could not say.",
        "ok": "No attack of this audit got far.",
        "none": "This audit attacked no answers of the service: see what it tried instead.",
    }[worst]
    return [
        tag("h1", {}, f"How much does {model['name']} leak although it is encrypted?"),
        tag(
            "p",
            {"class": "soft"},
            f"Audit of {moment(audit['created'])} on {data.get('name', 'its data')}, "
            f"{duration(float(audit['duration_s']))}.",
        ),
        tag("p", {"class": "verdict"}, verdict),
    ]


def _findings(audit: Mapping[str, Any]) -> Markup:
    ordered = sorted(audit["findings"], key=lambda finding: _ORDER.index(finding["severity"]))
    if not ordered:
        return tag("p", {}, "The audit came to no finding.")
    return join(
        tag(
            "article",
            {"class": f"finding {finding['severity']}"},
            tag(
                "h3",
                {},
                tag("span", {"class": "severity"}, _SEVERITY_WORDS[finding["severity"]]),
                finding["title"],
            ),
            tag("p", {}, finding["text"]),
            *(
                [tag("p", {}, tag("strong", {}, "What to do: "), finding["advice"])]
                if finding["advice"]
                else []
            ),
        )
        for finding in ordered
    )


def _paired_table(audit: Mapping[str, Any]) -> Markup | None:
    twins = audit["twins"]
    rows = [
        _accuracy_row(audit, name, label) for name, label in _ACCURACIES if audit["model"][name]
    ]
    rows += [_attack_row(attack, twins) for attack in audit["attacks"]]
    if not rows:
        return None
    blind = audit.get("blind")
    after: list[Child] = [
        tag(
            "p",
            {"class": "soft"},
            "The same attack, with the same seeds and the same budget, on four forms of the same "
            "targets. Brackets are 95 % intervals. A dot marks a figure that differs from the twin "
            "to its left by more than its paired interval.",
        )
    ]
    if blind is not None:
        verdict = "as it must be" if blind["holds"] else "which voids the membership figures"
        after.append(
            tag("p", {}, tag("strong", {}, "Blind baseline: "), f"{blind['note']}, {verdict}.")
        )
    head = tag(
        "tr",
        {},
        tag("th", {"scope": "col"}, "attack"),
        *(tag("th", {"scope": "col"}, twin_name(twin)) for twin in twins),
    )
    paired = table("One row an attack: its figure, interval and queries on each twin", head, rows)
    return join([paired, *after])


_ACCURACIES: Final = (
    ("accuracy", "accuracy, test records"),
    ("train_accuracy", "accuracy, own members"),
)


def _accuracy_row(audit: Mapping[str, Any], name: str, label: str) -> Markup:
    estimates = audit["model"][name]
    cells: list[Child] = [
        _figure_cell(estimates[twin], "accuracy", None, differs=False)
        if twin in estimates
        else tag("td", {}, "–")
        for twin in audit["twins"]
    ]
    return tag(
        "tr",
        {},
        tag("th", {"scope": "row"}, label, tag("span", {"class": "source"}, "no attack")),
        *cells,
    )


def _attack_row(attack: Mapping[str, Any], twins: Sequence[str]) -> Markup:
    changed = {
        pair["to"]
        for pair in attack["paired"]
        if pair["metric"] == attack.get("primary")
        and _is_neighbour(pair, twins)
        and not _holds_zero(pair["difference"])
    }
    cells = [_attack_cell(attack, twin, differs=twin in changed) for twin in twins]
    primary = attack.get("primary")
    what = "" if primary is None else metric_name(primary)
    label = tag(
        "th",
        {"scope": "row"},
        attack["title"],
        tag("span", {"class": "source"}, attack["reference"]),
        tag("span", {"class": "source"}, what),
    )
    return tag("tr", {}, label, *cells)


def _attack_cell(attack: Mapping[str, Any], twin: str, *, differs: bool) -> Markup:
    cell = attack["cells"].get(twin)
    if cell is None:
        return tag("td", {}, "–")
    if cell["status"] != "done":
        return tag(
            "td", {"class": "refused"}, f"{cell['status']}: {cell['reason'] or 'no reason given'}"
        )
    primary = attack["primary"]
    return _figure_cell(cell["metrics"][primary], primary, cell["spent"], differs=differs)


def _figure_cell(
    estimate: Mapping[str, Any], metric: str, spent: Mapping[str, Any] | None, *, differs: bool
) -> Markup:
    children: list[Child] = [
        tag("span", {"class": "value"}, value_text(float(estimate["value"]), metric)),
        tag("span", {"class": "interval"}, interval_text(estimate, metric)),
    ]
    if spent is not None:
        children.append(tag("span", {"class": "cost"}, queries(spent)))
    return tag("td", {"class": "differs" if differs else None}, *children)


def _differences(audit: Mapping[str, Any]) -> Markup | None:
    pairs = [(attack, pair) for attack in audit["attacks"] for pair in attack["paired"]]
    if not pairs:
        return None
    # An audit makes hundreds: the leading figure of every attack and whatever changed come first.
    first: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
    rest: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
    for attack, pair in pairs:
        ends = (pair["from"], pair["to"]) == (audit["twins"][0], audit["twins"][-1])
        near = ends or _is_neighbour(pair, audit["twins"])
        leads = pair["metric"] == attack.get("primary") and near
        leads = leads or not _holds_zero(pair["difference"])
        (first if leads else rest).append((attack, pair))
    note = tag(
        "p",
        {"class": "soft"},
        "Differences are paired: the same targets, members, records and seeds on both sides. Where "
        "zero lies inside the interval, the audit saw no change; one in twenty lies outside by "
        "chance.",
    )
    shown: list[Child] = [note, _pair_table("Later twin minus earlier twin", first)]
    if rest:
        summary = f"Other twins and figures: {len(rest)} differences with zero inside"
        shown.append(folded(summary, _pair_table("Other figures", rest)))
    return join(shown)


def _pair_table(
    caption: str, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> Markup:
    rows = []
    for attack, pair in pairs:
        difference, inside = pair["difference"], _holds_zero(pair["difference"])
        text = difference_text(difference, pair["metric"])
        rows.append(
            tag(
                "tr",
                {},
                tag("th", {"scope": "row"}, attack["title"]),
                tag("td", {}, metric_name(pair["metric"])),
                tag("td", {}, f"{twin_name(pair['from'])} → {twin_name(pair['to'])}"),
                tag(
                    "td",
                    {"class": None if inside else "differs"},
                    tag("span", {"class": "value"}, text),
                ),
                tag("td", {}, "inside" if inside else "outside"),
            )
        )
    head = head_row("attack", "figure", "from → to", "difference", "zero is")
    return table(caption, head, rows)


def _figures(audit: Mapping[str, Any]) -> Markup | None:
    rows = []
    for attack in audit["attacks"]:
        for twin, cell in attack["cells"].items():
            if cell["status"] != "done":
                continue
            for name, estimate in cell["metrics"].items():
                baseline = cell["baseline"].get(name)
                blind = "–" if baseline is None else value_text(float(baseline["value"]), name)
                rows.append(
                    tag(
                        "tr",
                        {},
                        tag("th", {"scope": "row"}, attack["title"]),
                        tag("td", {}, twin_name(twin)),
                        tag("td", {}, metric_name(name)),
                        tag("td", {}, value_text(float(estimate["value"]), name)),
                        tag("td", {}, interval_text(estimate, name)),
                        tag("td", {}, blind),
                        tag("td", {"class": "soft"}, str(estimate["method"])),
                    )
                )
    notes = _notes(audit)
    if not rows:
        return notes
    head = head_row(
        "attack", "twin", "figure", "value", "95 % interval", "without queries", "method"
    )
    everything = table("Everything that was measured", head, rows)
    figures = folded(f"All {len(rows)} figures, with intervals and methods", everything)
    return figures if notes is None else join([figures, notes])


def _notes(audit: Mapping[str, Any]) -> Markup | None:
    found: dict[str, None] = {}
    for attack in audit["attacks"]:
        for twin, cell in attack["cells"].items():
            for note in cell.get("notes", ()):
                found[f"{attack['title']}, {twin_name(twin)}: {note}"] = None
    if not found:
        return None
    return join([tag("h3", {}, "Notes"), tag("ul", {}, *(tag("li", {}, note) for note in found))])


def _holds_zero(estimate: Mapping[str, Any]) -> bool:
    return float(estimate["low"]) <= 0 <= float(estimate["high"])


def _is_neighbour(pair: Mapping[str, Any], twins: Sequence[str]) -> bool:
    return (pair["from"], pair["to"]) in itertools.pairwise(twins)
