"""What an audit accepts as its configuration, and one clear line for everything else."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from attacks.audit.config import AuditConfig, config_of, read_toml
from attacks.errors import AuditError

LEAST: dict[str, Any] = {"model": "digits-mlp", "data": "digits", "out": "audit"}


def test_a_file_and_flags_give_the_same_configuration(tmp_path: Path) -> None:
    file = tmp_path / "audit.toml"
    file.write_text(
        '[audit]\nmodel = "digits-mlp"\ndata = "digits"\nattacks = ["lira", "rmia"]\n'
        'budget = 100\nrate = 1\nout = "result"\n'
    )
    expected = {**LEAST, "out": tmp_path / "result", "attacks": "lira, rmia", "budget": 100}
    assert config_of(read_toml(file)) == config_of(expected | {"rate": 1.0})


def test_paths_in_a_file_are_beside_it(tmp_path: Path) -> None:
    (tmp_path / "net.py").touch()
    (tmp_path / "mine.npz").touch()
    file = tmp_path / "audit.toml"
    file.write_text('model = "net.py:build"\ndata = "mine.npz"\nweights = "w.safetensors"\n')
    settings = read_toml(file)
    assert settings["model"] == f"{tmp_path / 'net.py'}:build"
    assert settings["data"] == str(tmp_path / "mine.npz")
    assert settings["weights"] == tmp_path / "w.safetensors"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("budgte = 3", "did you mean 'budget'"),
        ("zzz = 3", "known are model"),
        ("budget = 1.5", "whole number"),
        ("budget = true", "whole number"),
        ('rate = "fast"', "a number"),
        ("model = 3", "must be text"),
        ("attacks = [1]", "list of names"),
        ("budget = 3\n[audit]\nbudget = 4", "both in"),
        ("audit = 3", "must be a table"),
        ("budget =", "is not TOML"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "audit.toml"
    file.write_text(text)
    with pytest.raises(AuditError, match=words):
        read_toml(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"cannot read .*absent\.toml"):
        read_toml(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget": 0}, "budget must lie between 1"),
        ({"targets": 0}, "targets must lie"),
        ({"shadows": 1}, "shadows must lie"),
        ({"rate": float("nan")}, "rate must lie"),
        ({"seed": -1}, "seed must lie"),
        ({"pool": 50}, "at least 128"),
        ({"attacks": ","}, "attacks names nothing"),
        ({"model": ""}, "needs a model"),
    ],
)
def test_values_out_of_range_say_what_is_allowed(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(AuditError, match=words):
        config_of({**LEAST, **changes})


def test_what_is_missing_is_named_by_its_flag() -> None:
    with pytest.raises(AuditError, match="needs --data and --out"):
        config_of({"model": "digits-mlp"})


@pytest.mark.parametrize(("targets", "shadows"), [(1, 2), (1, 3), (4, 16), (5, 16), (8, 2)])
def test_every_target_has_its_shadows(targets: int, shadows: int) -> None:
    models = config_of({**LEAST, "targets": targets, "shadows": shadows}).models
    assert models % 2 == 0 and models >= targets and models - 2 >= shadows


def test_the_key_changes_with_whatever_changes_a_figure() -> None:
    config = config_of(LEAST)
    key = config.key({"data": "a"})
    assert key == config.key({"data": "a"}) != config.key({"data": "b"})
    unchanged: dict[str, Any] = {"out": Path("elsewhere"), "jobs": 2, "attacks": ("membership",)}
    for field in dataclasses.fields(AuditConfig):
        value = getattr(config, field.name)
        if field.name in unchanged:
            other = dataclasses.replace(config, **{field.name: unchanged[field.name]})
            assert other.key({"data": "a"}) == key
        else:
            special: dict[str, Any] = {"weights": Path("w"), "pool": 1000}
            new = special.get(field.name) or value + (1 if not isinstance(value, str) else "x")
            changed = dataclasses.replace(config, **{field.name: new})
            assert changed.key({"data": "a"}) != key, field.name
