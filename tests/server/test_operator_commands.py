"""What an operator types beside a running server: it must neither block nor mislead."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from sqlalchemy import text

from he_infer.cli.main import main
from he_infer.server.state import State, tenants


def filled(folder: Path, entries: int) -> Path:
    """A state with a log of so many entries."""
    with State.open(folder) as state, state.database.transaction() as connection:
        tenants.add_tenant(connection, "acme", now=0.0)
        for index in range(entries):
            state.audit_log.append(connection, "answered", {"n": index}, now=0.0)
    return folder


def write(state: State) -> None:
    """A transaction as a server makes them."""
    with state.database.transaction() as connection:
        connection.execute(text("PRAGMA busy_timeout = 200"))
        state.audit_log.append(connection, "answered", {}, now=1.0)


def test_a_pager_that_stands_still_keeps_no_server_from_writing(tmp_path: Path) -> None:
    folder = filled(tmp_path / "s", 3000)
    command = [sys.executable, "-m", "he_infer", "audit-log", "--state", str(folder), "show"]
    with State.open(folder) as state:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()  # and no further, as `less` does
            start = time.monotonic()
            write(state)
            # Had it to wait for the reader, it would fail: after 0.2 s, or ten at its beginning.
            assert time.monotonic() - start < 30
            rest = process.stdout.read().splitlines()
            assert process.wait(120) == 0
    assert [json.loads(line)["sequence"] for line in rest[:2999]] == list(range(2, 3001))


def test_pages_of_the_log_join_without_gap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(filled(tmp_path, 2001))
    assert main(["audit-log", "--state", folder, "show", "--since", "1"]) == 0
    shown = [json.loads(line)["sequence"] for line in capsys.readouterr().out.splitlines()]
    assert shown == list(range(2, 2002))
    assert main(["tenants", "--state", folder, "list", "--json"]) == 0
    assert [row["tenant"] for row in json.loads(capsys.readouterr().out)] == ["acme"]


@pytest.mark.parametrize(
    "head", ["3", "3:00", "\u00b2:" + "0" * 64, "3:" + "g" * 64, "\u0663:" + "0" * 64]
)
def test_a_head_that_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], head: str
) -> None:
    folder = str(filled(tmp_path, 3))
    assert main(["audit-log", "--state", folder, "verify", "--head", head]) == 2
    assert "COUNT:DIGEST" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["audit-log", "verify"], ["audit-log", "show"], ["tenants", "list"]]
)
def test_a_folder_without_a_state_is_refused_and_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    first, *rest = command
    typo = tmp_path / "sate"
    assert main([first, "--state", str(typo), *rest]) == 2
    assert "holds no server's state" in capsys.readouterr().err
    assert not typo.exists()


def test_the_first_tenant_may_come_before_the_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "s")
    assert main(["tenants", "--state", folder, "add", "acme"]) == 0
    assert capsys.readouterr().out.startswith("hei_")
    assert main(["tenants", "--state", folder, "revoke", "acme"]) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "99999"], "expected 0 to 65535"),
        (["--port", "-1"], "expected 0 to 65535"),
        (["--key-quota-gb", "nan"], "--key-quota-gb"),
        (["--key-quota-gb", "0"], "--key-quota-gb"),
        (["--worker-memory-gb", "inf"], "--worker-memory-gb"),
        (["--certificate", "absent.pem", "--private-key", "absent.key"], "absent.pem"),
        (["--certificate", "pki/server.pem", "--private-key", "pki/acme.key"], "pki/acme.key"),
        (["--certificate", "junk", "--private-key", "pki/server.key"], "junk"),
        (["--certificate", "pki/server.pem", "--private-key", "locked.key"], "unencrypted"),
        (
            "--certificate pki/server.pem --private-key pki/server.key --client-authority junk"
            " --require-tokens".split(),
            "junk holds no certificate",
        ),
    ],
)
def test_options_that_cannot_be_are_told_before_plans_are_loaded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["certs", "pki", "--server", "127.0.0.1", "--client", "acme"]) == 0
    (tmp_path / "junk").write_text("no certificate\n")
    key = serialization.load_pem_private_key(Path("pki/server.key").read_bytes(), None)
    (tmp_path / "locked.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    capsys.readouterr()
    assert main(["serve", "absent.heplan", *options]) == 2
    error = capsys.readouterr().err
    assert words in error and "absent.heplan" not in error and "Traceback" not in error
