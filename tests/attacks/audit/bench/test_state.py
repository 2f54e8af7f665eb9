"""Saved cells: whole or absent, and never of another configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from attacks.audit.bench.state import StateStore, TrialName, write_atomically
from attacks.errors import AuditError

NAME = TrialName(twin="encrypted", attack="lira", target=3)


def store_in(folder: Path, key: str = "a" * 64) -> StateStore:
    return StateStore(folder, key, description={"why": "test"})


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    assert store.load(NAME) is None and store.finished() == 0
    store.save(NAME, {"metrics": {"auc": 0.1 + 0.2}, "notes": ("a",)})
    assert store_in(tmp_path).load(NAME) == {"metrics": {"auc": 0.1 + 0.2}, "notes": ["a"]}
    assert store.finished() == 1


def test_another_configuration_finds_nothing(tmp_path: Path) -> None:
    store_in(tmp_path).save(NAME, {"a": 1})
    assert store_in(tmp_path, "b" * 64).load(NAME) is None
    # Even where the folder's short name is the same.
    assert store_in(tmp_path, "a" * 16 + "b" * 48).load(NAME) is None


@pytest.mark.parametrize("damage", ["", "{", "null", "[]", '{"cell": {}}'])
def test_a_damaged_cell_is_measured_again(tmp_path: Path, damage: str) -> None:
    store = store_in(tmp_path)
    store.save(NAME, {"a": 1})
    (file,) = tmp_path.rglob("encrypted.lira.3.json")
    file.write_text(damage)
    assert store.load(NAME) is None
    store.save(NAME, {"a": 2})
    assert store.load(NAME) == {"a": 2}


def test_an_edited_figure_is_not_believed(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.save(NAME, {"fidelity": 0.25})
    (file,) = tmp_path.rglob("encrypted.lira.3.json")
    file.write_text(file.read_text().replace("0.25", "0.99"))
    assert store.load(NAME) is None


def test_not_a_number_is_never_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        store_in(tmp_path).save(NAME, {"a": float("nan")})
    assert store_in(tmp_path).load(NAME) is None


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.json"
    write_atomically(file, "old")

    def refuse(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"] and file.read_text() == "old"


def test_a_file_in_the_way_is_an_error_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(AuditError, match="cannot keep the audit's state"):
        store_in(tmp_path / "out")


@pytest.mark.parametrize("name", ["", "Lira", "a/b", "a.b", "-a"])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(AuditError, match="not the name of a trial"):
        TrialName(twin="encrypted", attack=name, target=0)
