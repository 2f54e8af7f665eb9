"""The command line of the benchmarks: every command is listed, described, and fails in words."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks.__main__ import MEASUREMENTS, build_parser, main


def commands() -> dict[str, argparse.ArgumentParser]:
    (choices,) = (
        action.choices
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    assert choices is not None
    return dict(choices)


def test_every_measurement_is_a_command_with_json() -> None:
    assert commands().keys() == MEASUREMENTS.keys()
    for parser in commands().values():
        assert any("--json" in action.option_strings for action in parser._actions)


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_every_option_has_a_help(name: str) -> None:
    missing = [action.dest for action in commands()[name]._actions if not action.help]
    assert missing == []


def test_an_unknown_claim_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service", "--quick", "--only", "fuz"]) == 2
    assert "--only takes fuzz, corpus" in capsys.readouterr().err


def test_a_record_that_cannot_be_written_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    words = ["sizing", "--case", "digits-mlp", "--json", str(tmp_path / "file" / "a.json")]
    assert main(words) == 2
    assert "cannot write" in capsys.readouterr().err
