"""The command: what it prints, what it writes, and one line with a way out for every mistake."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from he_infer.cli import console, demo, modelling
from he_infer.cli.main import build_parser, main
from he_infer.cli.querying import public_file
from he_infer.cli.sources import PASSPHRASE_VARIABLE
from he_infer.plan.file import load_plan
from he_infer.version import __version__

USER_MODEL = """
import torch
from torch import nn

class Squared(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x):
        hidden = self.first(x)
        return self.second(hidden * hidden)

def build():
    return Squared()

def pooled():
    return nn.Sequential(nn.MaxPool1d(2), nn.Linear(3, 2), nn.LSTM(2, 2))

def nothing():
    return 42

def broken():
    raise ZeroDivisionError("on purpose")
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model file and a sample, as the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(USER_MODEL)
    sample = np.random.default_rng(0).uniform(0, 1, (64, 6)).astype(np.float32)
    np.save(tmp_path / "sample.npy", sample)
    return tmp_path


def compile_mine(*more: str) -> list[str]:
    return ["compile", "--model", "mine.py:build", "--sample", "sample.npy", *more]


def test_version_and_help_come_without_a_framework() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "he_infer", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"he-infer {__version__}"


def commands() -> dict[str, argparse.ArgumentParser]:
    (found,) = (
        action
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return dict(found.choices)


def test_the_parser_loads_no_framework_and_holds_the_commands_of_the_attack_suite() -> None:
    code = (
        "import sys; from he_infer.cli.main import build_parser; build_parser();"
        "heavy = {'torch', 'starlette', 'uvicorn', 'tenseal', 'sklearn'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {"audit", "attacks", "compile", "serve", "query"} <= set(commands())


@pytest.mark.parametrize("name", ["models", "train", "approximate", "compile", "doctor", "demo"])
def test_every_argument_is_explained_and_every_command_has_an_example(name: str) -> None:
    parser = commands()[name]
    assert all(action.help for action in parser._actions)
    assert parser.epilog is not None and f"he-infer {name}" in parser.epilog
    assert parser.description and "%" not in parser.format_help()


def test_approximate_prints_measured_errors(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["approximate", "sigmoid", "--low", "-2", "--high", "2", "--degrees", "3", "5"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    errors = {(r["method"], r["degree"]): r["sup_error"] for r in found["results"]}
    assert errors["minimax", 5] < errors["minimax", 3] <= errors["least_squares", 3]
    assert main(command) == 0
    assert "minimax" in capsys.readouterr().out


def test_compile_says_everything_before_deployment(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(compile_mine("--name", "mine", "--precision-bits", "14", "--json")) == 0
    report = json.loads(capsys.readouterr().out)
    plan = load_plan(workplace / "mine.heplan")
    assert report["n"] == plan.params.n and report["security_bits"] >= 128
    assert report["depth"] == 3 and report["key_switches"] > 0 and report["predicted_ms"] > 0
    assert report["predicted_label_agreement"] == 1.0
    assert 0 < report["query_bytes"] < report["key_bytes"]
    assert set(report["outside_ranges"]) and Path(report["plan"]).name == "mine.heplan"
    assert main(compile_mine("--name", "mine", "--describe")) == 0
    text = capsys.readouterr().out
    assert "ring degree N" in text and "sample outside ranges" in text


def test_measured_costs_change_the_prediction(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    costs = {
        "transform_us": 1000.0,
        "word_ns": 4.4,
        "plain_word_ns": 1.0,
        "number_word_ns": 1.0,
        "key_word_ns": 1.0,
        "add_ns": 1.0,
        "ciphertext_ms": 1.0,
        "hoisting": True,
    }
    (workplace / "costs.json").write_text(json.dumps(costs))
    assert main(compile_mine("--name", "a", "--json")) == 0
    usual = json.loads(capsys.readouterr().out)["predicted_ms"]
    assert main(compile_mine("--name", "a", "--json", "--costs", "costs.json")) == 0
    assert json.loads(capsys.readouterr().out)["predicted_ms"] > 2 * usual


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compile", "--model", "resnet50"], "path/to/file.py:factory"),
        (["compile", "--model", "absent.py:build"], "absent.py"),
        (["compile", "--model", "mine.py:build"], "--sample"),
        (["compile", "--model", "mine.py:wrong", "--sample", "sample.npy"], "no function 'wrong'"),
        (["compile", "--model", "mine.py:nothing", "--sample", "sample.npy"], "expected an nn"),
        (["compile", "--model", "mine.py:broken", "--sample", "sample.npy"], "on purpose"),
        (["compile", "--model", "mine.py:pooled", "--sample", "sample.npy"], "cannot compile"),
        (compile_mine("--weights", "absent.safetensors"), "safetensors"),
        (compile_mine("--batch", "3"), "power of two"),
        (compile_mine("--costs", "sample.npy"), "costs"),
        (["compile", "--model", "mine.py:build", "--sample", "mine.py"], "npy"),
        (["approximate", "cosine"], "choose one of"),
        (["serve", "absent.heplan"], "absent.heplan"),
        (["serve", "a.heplan", "--certificate", "c.pem"], "--private-key"),
        (["query", "absent.npy", "--model", "m"], "absent.npy"),
        (["query", "sample.npy", "--model", "m", "--server", "http://127.0.0.1:9"], "127.0.0.1:9"),
        (["query", "sample.npy", "--model", "m", "--key", "absent.key"], "absent.key"),
        (["keygen", "--server", "http://127.0.0.1:9", "--out", "k"], "--model"),
        (["keygen", "--plan", "absent.heplan", "--out", "k"], "absent.heplan"),
        (["train", "tutorial-cnn", "--data", "."], "he_infer.datasets.download"),
        (["demo", "--images", "0"], "the test set has"),
    ],
)
def test_every_mistake_is_one_line_with_a_way_out(
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "correct horse")
    assert main(arguments) == 2
    captured = capsys.readouterr()
    first = captured.err.splitlines()[0]
    assert first.startswith("he-infer: error: ") and "Traceback" not in captured.err
    assert words in captured.err and captured.out == ""


def test_pickled_arrays_are_never_loaded(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(workplace / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert main(["query", "evil.npy", "--model", "m"]) == 2
    assert "evil.npy" in capsys.readouterr().err


def test_an_interruption_is_clean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(modelling, "run_models", interrupted)
    assert main(["models"]) == 130
    assert capsys.readouterr().err == "he-infer: interrupted\n"


def test_a_missing_passphrase_says_where_to_put_it(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(compile_mine("--name", "mine")) == 0
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert main(["keygen", "--plan", "mine.heplan", "--out", "k"]) == 2
    assert PASSPHRASE_VARIABLE in capsys.readouterr().err
    (workplace / "empty").write_text("\n")
    keygen = ["keygen", "--plan", "mine.heplan", "--out", "k"]
    assert main([*keygen, "--passphrase-file", "empty"]) == 2
    assert not (workplace / "k").exists()


def run_json(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> Any:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_compile_keygen_serve_query_end_to_end(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "correct horse")
    run_json(capsys, compile_mine("--name", "mine", "--precision-bits", "14"))
    plan = load_plan("mine.heplan")
    keys = run_json(capsys, ["keygen", "--plan", "mine.heplan", "--out", "my.key"])
    assert public_file(Path("my.key")).stat().st_size == keys["public_bytes"]
    assert main(["keygen", "--plan", "mine.heplan", "--out", "my.key"]) == 2
    capsys.readouterr()
    records = np.load("sample.npy")[:2]
    np.save("two.npy", records)
    np.save("far.npy", records * 10)
    with demo.serving([plan]) as address:
        ask = ["query", "two.npy", "--server", address, "--model", "mine", "--key", "my.key"]
        answer = run_json(capsys, [*ask, "--plan-digest", plan.digest, "--strict"])
        again = run_json(capsys, ask)
        fresh = run_json(capsys, ["query", "two.npy", "--server", address, "--model", "mine"])
        assert main(["query", "far.npy", *ask[2:], "--strict"]) == 2
        assert "outside the calibrated range" in capsys.readouterr().err
        assert main([*ask, "--plan-digest", "0" * 64]) == 2
        assert main(["query", "two.npy", "--server", address, "--model", "yours"]) == 2
        monkeypatch.setenv(PASSPHRASE_VARIABLE, "wrong horse")
        assert main(ask) == 2
    logits = np.asarray(expected_logits(records))
    for got in (answer, again, fresh):
        assert got["labels"] == logits.argmax(axis=1).tolist()
        np.testing.assert_allclose(got["logits"], logits, atol=1e-2)


def expected_logits(records: np.ndarray) -> np.ndarray:
    import torch

    from he_infer.cli.sources import load_model

    with torch.no_grad():
        return np.asarray(load_model("mine.py:build", None)(torch.from_numpy(records)).numpy())


def test_an_empty_token_variable_is_as_good_as_none(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HE_INFER_TOKEN", "")
    assert main(["query", "sample.npy", "--model", "m", "--server", "http://127.0.0.1:9"]) == 2
    assert "no server answers" in capsys.readouterr().err


def test_tables_align(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_table(["a", "long"], [["first", "x"], ["s", "y"]])
    assert capsys.readouterr().out == "a      long\nfirst  x\ns      y\n"


def test_bars_are_drawn_on_terminals_only() -> None:
    with console.progress_bars() as progress:
        assert progress is None  # pytest's stderr is no terminal
