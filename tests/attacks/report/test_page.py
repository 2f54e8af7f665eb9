"""The page: everything is there, nothing untrusted becomes markup, nothing is loaded."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from attacks.audit.document.codec import from_json
from attacks.core.intervals import Estimate
from attacks.errors import AuditError
from attacks.report import render, write_report
from attacks.report.charts import Axis
from attacks.report.markup import tag
from attacks.report.numbers import (
    difference_text,
    duration,
    interval_text,
    number,
    size,
    value_text,
)
from tests.attacks.report.made_up import audit, estimate

VOID = {"meta", "line", "rect", "path", "circle", "polyline", "polygon"}


class Reader(HTMLParser):
    """Checks nesting and collects elements, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(document: dict[str, Any]) -> Reader:
    reader = Reader()
    reader.feed(render(document))
    assert not reader.open
    return reader


def test_every_section_is_there_and_linked() -> None:
    reader = read(audit())
    links = {a["href"] for t, a in reader.seen if t == "a"}
    targets = {f"#{a['id']}" for t, a in reader.seen if "id" in a}
    assert links <= targets and len(targets) == 8
    text = " ".join(reader.words)
    for expected in (
        "99.0 %",
        "3,000 records in 1 request",
        "refused: path finding takes decision trees",
        "he-infer audit --model made-up",
        "Blind baseline",
        "9 MB",
        "torch",
    ):
        assert expected in text


def test_every_seed_is_shown_however_deep() -> None:
    document = audit()
    document["seeds"] = {"audit": 7, "targets": {"0": {"split": 41, "training": 42}}}
    text = " ".join(read(document).words)
    assert "targets, 0, split" in text and "41" in text and "42" in text


def test_quiet_differences_are_folded() -> None:
    document = audit()
    quiet = document["attacks"][0]["paired"][0] | {
        "metric": "accuracy",
        "difference": estimate(0.0),
    }
    document["attacks"][0]["paired"].append(quiet)
    text = " ".join(read(document).words)
    assert "Other twins and figures: 1 differences" in text


def test_the_worst_finding_comes_first() -> None:
    text = " ".join(read(audit()).words)
    assert text.index("A client can copy the model") < text.index("Queries stay hidden")


def test_nothing_is_loaded_and_nothing_runs() -> None:
    page = render(audit())
    assert "default-src &#x27;none&#x27;" in page
    assert not re.search(r"<script|javascript:|https?:|url\(|@import|<link|<img|<iframe", page)


HOSTILE = "</style><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"


def poisoned(value: Any) -> Any:
    """Every string in the audit replaced by hostile text, where the schema allows any text."""
    fixed = {"severity", "status", "primary", "metric", "from", "to", "family", "method"}
    if isinstance(value, dict):
        return {k: v if k in fixed else poisoned(v) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(v) for v in value]
    return HOSTILE if isinstance(value, str) else value


def test_text_never_becomes_markup() -> None:
    document = poisoned(audit())
    document["twins"] = audit()["twins"]
    reader = read(document)
    assert "script" not in {t for t, _ in reader.seen}
    assert "img" not in {t for t, _ in reader.seen}
    assert not any(name.startswith("on") for _, a in reader.seen for name in a)


def test_attributes_are_escaped() -> None:
    assert tag("td", {"title": '"><b>'}).text == '<td title="&quot;&gt;&lt;b&gt;"></td>'


def spoiled(path: str, value: Any) -> dict[str, Any]:
    document = audit()
    *parents, last = path.split("/")
    at: Any = document
    for step in parents:
        at = at[int(step)] if isinstance(at, list) else at[step]
    if value is KeyError:
        del at[last]
    else:
        at[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", 2, "schema: expected 1"),
        ("command", KeyError, "command: missing"),
        ("twins", "encrypted", "twins: has the wrong type"),
        ("findings/0/severity", "dire", r"findings\[0\]\.severity: expected one of"),
        ("attacks/0/cells/encrypted/status", "lost", r"cells\.encrypted\.status"),
        ("attacks/1/primary", "charm", r"lacks the primary figure 'charm'"),
        ("attacks/0/paired/0/difference", {"value": 1}, r"paired\[0\]\.difference\.low: missing"),
        ("blind/holds", "yes", r"blind\.holds: has the wrong type"),
        ("model/accuracy/encrypted", {**estimate(1), "value": float("nan")}, "finite"),
        ("attacks/1/cells/encrypted/curves/roc/x", [1.0], "one length"),
    ],
)
def test_a_malformed_audit_names_the_field(path: str, value: Any, message: str) -> None:
    with pytest.raises(AuditError, match=message):
        render(spoiled(path, value))


def test_a_bare_audit_still_makes_a_page() -> None:
    document = audit()
    document |= {"attacks": [], "findings": [], "threat_models": [], "blind": None}
    document["model"] |= {"accuracy": {}, "train_accuracy": {}}
    text = " ".join(read(document).words)
    assert "no finding" in text and "Curves" not in text


def test_one_twin_and_missing_curves_make_a_page() -> None:
    document = audit()
    document["twins"] = ["encrypted"]
    document["model"]["accuracy"] = {"encrypted": estimate(0.9)}
    document["model"]["train_accuracy"] = {}
    for attack in document["attacks"]:
        attack["cells"] = {"encrypted": attack["cells"]["encrypted"] | {"curves": {}}}
        attack["paired"] = []
    assert "encrypted service" in " ".join(read(document).words)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_extreme_figures_make_a_page(scale: float) -> None:
    document = audit()
    metrics = document["attacks"][0]["cells"]["encrypted"]["metrics"]
    metrics["max_logit_error"] = estimate(scale, scale / 2)
    curve = document["attacks"][0]["cells"]["encrypted"]["curves"]["fidelity"]
    curve["x"] = [x * scale for x in curve["x"]]
    assert read(document)


def test_rendering_changes_nothing() -> None:
    document = audit()
    before = copy.deepcopy(document)
    assert render(document) == render(document)
    assert document == before


def test_the_file_is_whole_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(AuditError):
        write_report({"schema": 1}, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
    write_report(audit(), tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def palettes() -> list[dict[str, str]]:
    sheet = resources.files("attacks.report").joinpath("assets/report.css").read_text("utf-8")
    blocks = re.findall(r":root \{(.*?)\}", sheet, re.S)
    return [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in blocks]


@pytest.mark.parametrize("index", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_and_curves_contrast_with_the_page(index: int) -> None:
    colours = palettes()[index]
    for name, colour in colours.items():
        if name in ("page", "panel", "rule"):
            continue
        needed = 3.0 if re.fullmatch(r"s\d", name) else 4.5  # WCAG 2.2: graphics, text
        for behind in ("page", "panel"):
            light, dark = sorted((luminance(colour), luminance(colours[behind])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= needed, (name, behind)


def test_numbers_read_well() -> None:
    assert value_text(0.9731, "fidelity_test") == "97.3 %"
    assert value_text(0.7640001, "auc") == "0.764"
    half, rank, less = (
        from_json(Estimate, each)
        for each in (estimate(0.5, 0.1), estimate(3, 0, "exact"), estimate(-0.02, 0.01))
    )
    assert interval_text(half, "accuracy") == "[40.0, 60.0] %"
    assert interval_text(rank, "rank") == "exact"
    assert difference_text(less, "accuracy") == "−2.0 [−3.0, −1.0] points"
    assert [number(v) for v in (0, 1e-7, 0.0123, 12345.6)] == ["0", "1.00e-07", "0.0123", "12,346"]
    assert [size(v) for v in (12, 4096, 9e6, 2e9)] == ["12 B", "4.1 kB", "9 MB", "2 GB"]
    assert [duration(v) for v in (0.01, 30, 600, 9000)] == ["10 ms", "30.0 s", "10.0 min", "2.5 h"]


def test_axes_place_values_and_ticks() -> None:
    log = Axis(label="", low=1e-3, high=1.0, log=True)
    assert log.place(1e-3) == 0 and log.place(1.0) == 1 and log.place(0.0) == 0
    assert log.ticks() == pytest.approx([1e-3, 1e-2, 1e-1, 1.0])
    linear = Axis(label="", low=0.37, high=1.0)
    assert linear.ticks() == pytest.approx([0.4, 0.6, 0.8, 1.0])
