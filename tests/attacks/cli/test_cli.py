"""The suite's commands: what they print, and one line for every mistake."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attacks import catalogue
from attacks.audit import run
from attacks.catalogue import ATTACKS
from benchmarks.leakage import reference as leakage_reference
from he_infer.cli import machine
from he_infer.cli.main import build_parser, main
from he_infer.errors import InputError
from tests.paths import CHECKOUT

SMALL = ["--model", "mine.py:build", "--data", "iris", "--epochs", "40", "--batch", "8"]
SMALL += ["--targets", "2", "--shadows", "4", "--budget", "200", "--rate", "0.02", "--out", "out"]
MODEL = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MODEL)
    return tmp_path


def test_the_catalogue_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attacks"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ATTACKS) and "logits or probabilities" in text
    assert main(["attacks", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["attacks"]
    assert [entry["name"] for entry in listed] == list(ATTACKS)
    assert set(listed[0]) == {"name", "title", "family", "reference", "threat_model", "needs"}


def test_every_published_system_is_listed_with_what_runs_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["attacks", "--json"]) == 0
    systems = json.loads(capsys.readouterr().out)["systems"]
    parser, groups = build_parser(), leakage_reference.GROUPS
    for system in systems:
        assert system["title"] and system["reference"] and system["threat_model"]
        for place in system["code"].split(", "):
            assert (CHECKOUT / place).exists(), place
        program, *words = shlex.split(system["command"])
        if program == "he-infer":
            options = parser.parse_args(words)
            for word in getattr(options, "attacks", "all").split(","):
                assert word in catalogue.SUITES or catalogue.choose([word])
        else:
            assert words[:2] == ["-m", "benchmarks"]
            chosen = words[words.index("--groups") + 1].split(",") if "--groups" in words else []
            assert set(chosen) <= set(groups)
    authors = ("Tramèr", "Papernot", "Steinhardt", "Shafahi", "Hesamifard", "Shokri", "Goodfellow")
    text = " ".join(system["reference"] for system in systems)
    assert all(author in text for author in authors)


def test_other_commands_do_not_load_the_suite() -> None:
    code = (
        "import sys; from he_infer.cli.main import build_parser; build_parser();"
        "print([n for n in ('torch', 'scipy', 'attacks.audit', 'sklearn') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["audit"], "needs --model and --data and --out"),
        (["audit", "--config", "absent.toml"], "cannot read absent.toml"),
        (["audit", *SMALL, "--attacks", "lyra-fixed"], "did you mean 'lira-fixed'"),
        (["audit", *SMALL, "--budget", "0"], "budget must lie between"),
        (["audit", *SMALL, "--data", "absent"], "no data at 'absent'"),
        (["audit", *SMALL, "--data", "nan.npz"], "not finite"),
        (["audit", *SMALL, "--data", "digits"], "takes records of none of the shapes"),
        (["audit", *SMALL, "--pool", "140"], "at least 180 are needed"),
        (["audit", *SMALL, "--model", "resnet"], "no model is called 'resnet'"),
        (["audit", *SMALL, "--model", "mine.py:absent"], "no function 'absent'"),
        (["audit", *SMALL, "--weights", "mine.py"], "safetensors"),
        (["audit", *SMALL, "--out", "mine.py"], "mine.py"),
    ],
)
def test_every_mistake_is_one_line_before_any_training(
    workplace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    np.savez("nan.npz", inputs=np.full((300, 4), np.nan), labels=np.arange(300) % 3)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("he-infer: error: ") and words in captured.err
    assert captured.out == "" and len(captured.err.splitlines()) == 1
    assert not (workplace / "out" / "models").exists()


def check_document(document: dict[str, Any], attacks: set[str]) -> None:
    """What every audit.json holds."""
    assert document["schema"] == 1
    twins = ["plaintext-relu", "plaintext-polynomial", "simulated", "encrypted"]
    assert document["twins"] == twins
    rows = {row["name"]: row for row in document["attacks"]}
    assert set(rows) == attacks
    for row in rows.values():
        assert list(row["cells"]) == twins
        for cell in row["cells"].values():
            assert cell["status"] in ("done", "refused") and (cell["reason"] is None) == (
                cell["status"] == "done"
            )
            for figure in cell["metrics"].values():
                assert figure["low"] <= figure["value"] <= figure["high"]
        pairs = {(pair["from"], pair["to"]) for pair in row["paired"]}
        if all(cell["status"] == "done" for cell in row["cells"].values()):
            assert {("plaintext-relu", "plaintext-polynomial"), (twins[0], twins[3])} <= pairs
    assert document["plan"]["security_bits"] >= 128
    assert document["blind"] is None or document["blind"]["auc"]["low"] <= 0.5
    assert {finding["severity"] for finding in document["findings"]} <= {
        "high",
        "medium",
        "low",
        "ok",
    }
    assert document["versions"]["tenseal"] and document["machine"] and document["game"]


@pytest.mark.slow
def test_an_audit_of_a_small_model_of_ones_own(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Edited sources make another audit; here the sources may be under work meanwhile.
    monkeypatch.setattr(run, "code_digest", lambda: "the same")
    chosen = ["--attacks", "yeom,quadratic-extraction,lowd-meek"]
    assert main(["audit", *SMALL, *chosen, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    check_document(document, {"yeom", "quadratic-extraction", "lowd-meek"})
    assert document == json.loads((workplace / "out" / "audit.json").read_text())
    assert "<html" in (workplace / "out" / "report.html").read_text()[:200]
    rows = {row["name"]: row for row in document["attacks"]}
    stolen = rows["quadratic-extraction"]["cells"]["encrypted"]
    assert stolen["metrics"]["fidelity_test"]["value"] > 0.95  # a network of squares falls
    assert stolen["spent"] | {"records": 200, "requests": 1} == stolen["spent"]
    refused = rows["lowd-meek"]["cells"]["encrypted"]
    assert refused["status"] == "refused" and "two classes" in refused["reason"]

    # The same again finds everything; more attacks add to it.
    assert main(["audit", *SMALL, *chosen]) == 0
    text = capsys.readouterr().out
    assert "resumed: " in text and "report:  out/report.html" in text
    assert "blind baseline: holds" in text and "[ok]" in text
    again = json.loads((workplace / "out" / "audit.json").read_text())
    assert again["attacks"] == document["attacks"] and again["blind"] == document["blind"]


# The command, which waits behind its fifth cell: it cannot end before it is interrupted.
HELD = """
import signal, time
from attacks.audit.bench.state import StateStore
from he_infer.cli.main import entry

# A shell's background jobs ignore SIGINT, and so would their children.
signal.signal(signal.SIGINT, signal.default_int_handler)
save, saved = StateStore.save, []

def save_and_wait(store, name, cell):
    save(store, name, cell)
    saved.append(name)
    if len(saved) == 5:
        print("five", flush=True)
        time.sleep(3600)

StateStore.save = save_and_wait
entry()
"""


@pytest.mark.slow
def test_an_interrupted_command_goes_on(workplace: Path) -> None:
    arguments = ["audit", *SMALL, "--attacks", "yeom,knockoff"]
    cells, log = workplace / "out" / "state", workplace / "log"
    command = [sys.executable, "-c", HELD, *arguments]
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as first,
    ):
        try:
            assert first.stdout is not None
            assert "five\n" in iter(first.stdout.readline, ""), log.read_text()
            first.send_signal(signal.SIGINT)
            assert first.wait(300) == 130, log.read_text()
        finally:
            first.kill()
    errors = log.read_text()
    assert "he-infer: interrupted" in errors and "the same command goes on" in errors
    assert "Traceback" not in errors and not (workplace / "out" / "audit.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in cells.rglob("cells/*.json")}
    assert len(kept) == 5
    assert main(arguments) == 0
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in kept.items())
    resumed = json.loads((workplace / "out" / "audit.json").read_text())
    assert main([*arguments, "--out", "whole"]) == 0
    whole = json.loads((workplace / "whole" / "audit.json").read_text())
    check_document(resumed, {"yeom", "knockoff"})
    for ours, theirs in zip(resumed["attacks"], whole["attacks"], strict=True):
        for twin in ("plaintext-relu", "plaintext-polynomial", "simulated"):
            assert ours["cells"][twin]["metrics"] == theirs["cells"][twin]["metrics"]


class Plugin:
    """An entry point of the demonstration's group."""

    name = "extra"

    def __init__(self, outcome: Exception | str) -> None:
        self._outcome = outcome

    def load(self) -> Any:
        def epilogue(folder: Path, *, progress: object) -> str:
            if isinstance(self._outcome, Exception):
                raise self._outcome
            return f"{self._outcome} {folder}"

        if isinstance(self._outcome, ImportError):
            raise self._outcome
        return epilogue


@pytest.mark.parametrize("outcome", [ImportError("no such module"), InputError("too few")])
def test_an_epilogue_that_fails_costs_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], outcome: Exception
) -> None:
    plugins = [Plugin(outcome), Plugin("done in")]
    monkeypatch.setattr(machine, "entry_points", lambda group: plugins)
    machine.run_epilogues(Path("there"), to=sys.stdout)
    captured = capsys.readouterr()
    assert captured.out.strip() == "done in there"
    assert f"extra after the demonstration failed: {outcome}" in captured.err


@pytest.mark.slow
@pytest.mark.timeout(3600)  # minutes on a machine of its own
def test_the_demonstration_ends_with_an_audit(tmp_path: Path) -> None:
    from attacks.cli.demo import ATTACKS as SHOWN
    from attacks.cli.demo import audit_after_demo

    text = audit_after_demo(tmp_path)
    assert str(tmp_path / "audit" / "report.html") in text and "[high]" in text
    document = json.loads((tmp_path / "audit" / "audit.json").read_text())
    check_document(document, {*SHOWN, "quadratic-extraction-delivered"})
    delivered = document["attacks"][-1]["cells"]
    assert delivered["encrypted"]["metrics"]["fidelity_test"]["value"] > 0.99
    assert delivered["plaintext-relu"]["status"] == "refused"
