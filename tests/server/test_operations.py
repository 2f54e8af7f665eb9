"""What an operator does, with real processes: tokens, TLS, versions, restarts, backups."""

from __future__ import annotations

import functools
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.service.rig import ServerProcess, in_the_clear, records_of, zoo_plan
from he_infer.client.asynchronous import AsyncClient
from he_infer.client.client import Client
from he_infer.client.transport import HttpTransport
from he_infer.errors import RefusedError, UnreachableError
from he_infer.keys.secret import SecretKeys
from he_infer.plan.file import save_plan
from he_infer.plan.plan import Plan
from tests.server.databases import postgresql


@pytest.fixture(scope="module")
def plan() -> Plan:
    return zoo_plan("digits-mlp", model="digits")


@pytest.fixture
def home(tmp_path: Path, plan: Plan) -> Path:
    save_plan(plan, tmp_path / "digits.plan")
    return tmp_path


def cli(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "he_infer", *words]
    return subprocess.run(command, cwd=home, capture_output=True, text=True)


def predict(plan: Plan, transport: HttpTransport | str, **options: object) -> None:
    records = records_of(plan, 2)
    with Client.connect(transport, model="digits", **options) as client:  # type: ignore[arg-type]
        found = client.predict(records).logits
    assert np.abs(found - in_the_clear(plan, records)).max() < 2.0**-7


@pytest.mark.slow
def test_tokens_from_the_command_line(home: Path, plan: Plan) -> None:
    added = cli(home, "tenants", "--state", "s", "add", "acme", "--records", "3")
    assert added.returncode == 0, added.stderr
    token = added.stdout.strip()
    assert cli(home, "tenants", "--state", "s", "add", "acme").returncode == 2
    with ServerProcess(
        [home / "digits.plan"], "--state", "s", "--require-tokens", cwd=home
    ) as server:
        with HttpTransport(server.url, token=token) as transport:
            predict(plan, transport)
        with HttpTransport(server.url) as transport, pytest.raises(RefusedError) as refused:
            predict(plan, transport)
        assert refused.value.status == 401
        with HttpTransport(server.url, token=token) as transport, pytest.raises(RefusedError) as r:
            predict(plan, transport)
        assert (r.value.status, r.value.code) == (429, "budget_spent")
        listed = cli(home, "tenants", "--state", "s", "list")
        assert "acme" in listed.stdout
        assert cli(home, "tenants", "--state", "s", "revoke", "acme").stdout == (
            "revoked 1 token(s)\n"
        )
        with HttpTransport(server.url, token=token) as transport, pytest.raises(RefusedError) as r:
            predict(plan, transport)
        assert r.value.status == 401
    log = server.log.read_text()
    assert token not in log and "acme" in log
    stored = b"".join(p.read_bytes() for p in (home / "s").rglob("*") if p.is_file())
    assert token.encode() not in stored
    verified = cli(home, "audit-log", "--state", "s", "verify")
    assert verified.returncode == 0 and "none altered" in verified.stdout
    head = verified.stdout.split()[-1]
    assert cli(home, "audit-log", "--state", "s", "verify", "--head", head).returncode == 0
    shown = cli(home, "audit-log", "--state", "s", "show").stdout.splitlines()
    assert any('"answered"' in line for line in shown)


def test_mutual_tls(home: Path, plan: Plan) -> None:
    made = cli(home, "certs", "pki", "--server", "127.0.0.1", "--client", "acme", "eve")
    assert made.returncode == 0, made.stderr
    assert cli(home, "tenants", "--state", "s", "add", "acme").returncode == 0
    pki = home / "pki"
    with ServerProcess(
        [home / "digits.plan"],
        *("--state", "s", "--certificate", "pki/server.pem"),
        *("--private-key", "pki/server.key", "--client-authority", "pki/ca.pem"),
        cwd=home,
    ) as server:
        assert server.url.startswith("https://")
        authority = pki / "ca.pem"

        def connected(name: str) -> HttpTransport:
            pair = (pki / f"{name}.pem", pki / f"{name}.key")
            return HttpTransport(server.url, authority=authority, certificate=pair, attempts=1)

        with connected("acme") as transport:
            predict(plan, transport)
        with connected("eve") as transport, pytest.raises(RefusedError) as stranger:
            predict(plan, transport)
        assert stranger.value.status == 401
        with (
            HttpTransport(server.url, authority=authority, attempts=1) as transport,
            pytest.raises(UnreachableError),
        ):
            predict(plan, transport)


def test_other_addresses_need_tokens(home: Path) -> None:
    done = cli(home, "serve", "digits.plan", "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 2 and "--require-tokens" in done.stderr


@pytest.mark.slow
def test_two_models_and_a_version_that_was_replaced(home: Path, plan: Plan) -> None:
    other = zoo_plan("digits-mlp", model="digits", precision_bits=9)
    third = zoo_plan("digits-mlp", model="third")
    save_plan(other, home / "other.plan")
    save_plan(third, home / "third.plan")
    plans = [home / "digits.plan", home / "third.plan"]
    with ServerProcess(plans, "--state", "s", cwd=home) as server:
        client = Client.connect(server.url, model="digits")
        client.predict(records_of(plan, 1))
        listed = httpx.get(f"{server.url}/v2/models", trust_env=False, timeout=60)
        assert {entry["name"] for entry in listed.json()["models"]} == {"digits", "third"}
    spec, keys = client.spec, client.keys
    client.close()
    with ServerProcess([home / "other.plan"], "--state", "s", cwd=home) as server:
        with HttpTransport(server.url) as transport:
            stale = Client(transport, spec=spec, keys=keys)
            stale._uploaded = True
            with pytest.raises(RefusedError) as gone:
                stale.predict(records_of(plan, 1))
    assert (gone.value.status, gone.value.code) == (410, "plan_replaced")


@pytest.mark.slow
def test_clients_of_two_versions_are_answered_side_by_side(home: Path, plan: Plan) -> None:
    other = zoo_plan("tutorial-cnn", model="digits")
    save_plan(other, home / "other.plan")
    assert other.client_spec.params != plan.client_spec.params
    records = records_of(plan, 1)
    with ServerProcess([home / "digits.plan", home / "other.plan"], cwd=home) as server:
        with HttpTransport(server.url) as transport:
            spec = plan.client_spec  # as it was before the other version became the default
            with Client(transport, spec=spec, keys=SecretKeys.generate(spec.params)) as client:
                found = client.predict(records).logits
    assert np.abs(found - in_the_clear(plan, records)).max() < 2.0**-7


def wait_for(answered: list[int], more: int, failures: list[BaseException]) -> None:
    """Until so many more answers have come, or one of the clients has failed."""
    wanted, deadline = answered[0] + more, time.monotonic() + 120
    while answered[0] < wanted and not failures:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_a_rolling_restart_under_load_loses_nothing(home: Path, plan: Plan) -> None:
    options = ("--state", "s", "--reuse-port")
    first = ServerProcess([home / "digits.plan"], *options, cwd=home)
    port = first.url.rpartition(":")[2]
    records, answered, stop = records_of(plan, 1), [0], threading.Event()
    failures: list[BaseException] = []

    def load() -> None:
        try:
            with Client.connect(first.url, model="digits") as client:
                while not stop.is_set():
                    found = client.predict(records).logits
                    assert np.abs(found - in_the_clear(plan, records)).max() < 2.0**-7
                    answered[0] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(3)]
    with first:
        for thread in threads:
            thread.start()
        try:
            wait_for(answered, 3, failures)
            with ServerProcess(
                [home / "digits.plan"], *options, "--port", port, cwd=home
            ) as second:
                before = answered[0]
                assert first.stop() == 0
                wait_for(answered, 30, failures)
                stop.set()
                for thread in threads:
                    thread.join()
                assert second.stop() == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert failures == [] and answered[0] > before > 0


@pytest.mark.slow
def test_a_backup_of_the_state_is_enough(home: Path, plan: Plan) -> None:
    with ServerProcess([home / "digits.plan"], "--state", "s", cwd=home) as server:
        client = Client.connect(server.url, model="digits")
        client.predict(records_of(plan, 1))
    made = client._made_keys()
    client.close()
    shutil.copytree(home / "s", home / "restored")
    shutil.rmtree(home / "s")
    with ServerProcess([home / "digits.plan"], "--state", "restored", cwd=home) as server:
        with Client.connect(
            server.url, model="digits", keys=client.keys, evaluation_keys=made
        ) as again:
            assert again.upload_keys() is False
            again.predict(records_of(plan, 1))


@pytest.mark.slow
def test_state_on_postgresql(home: Path, plan: Plan) -> None:
    with postgresql() as url:
        state = ("--database", url, "--blobs", str(home / "blobs"))
        with ServerProcess([home / "digits.plan"], *state, cwd=home) as server:
            predict(plan, server.url)
        verified = cli(home, "audit-log", "--database", url, "verify")
    assert verified.returncode == 0 and "2, none altered" not in verified.stdout
    assert "none altered" in verified.stdout


@pytest.mark.slow
def test_asynchronous_clients_work_side_by_side(home: Path, plan: Plan) -> None:
    import asyncio

    records = records_of(plan, 1)

    async def conversation(url: str) -> None:
        opened = [await AsyncClient.connect(url, model="digits") for _ in range(2)]
        try:
            found = await asyncio.gather(*(c.predict(records) for c in opened for _ in range(2)))
        finally:
            for client in opened:
                await client.close()
        for prediction in found:
            assert np.abs(prediction.logits - in_the_clear(plan, records)).max() < 2.0**-7

    with ServerProcess([home / "digits.plan"], "--workers", "2", cwd=home) as server:
        asyncio.run(conversation(server.url))


def test_release_hides_the_exact_logits(home: Path, plan: Plan) -> None:
    records = records_of(plan, 1)
    with ServerProcess([home / "digits.plan"], cwd=home) as server:
        with Client.connect(server.url, model="digits") as client:
            prediction = client.predict(records)
            released = client.release(prediction, bits=6)
    assert np.array_equal(released * 64, np.rint(released * 64))
    assert 0 < np.abs(released - prediction.logits).max() <= 1.5 / 64


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no chromium: install Debian's chromium package")
    return found


@pytest.mark.slow
def test_the_status_page_in_a_browser(home: Path, plan: Plan, chromium: str) -> None:
    run = functools.partial(subprocess.run, capture_output=True, text=True, timeout=300)
    with ServerProcess([home / "digits.plan"], cwd=home) as server:
        predict(plan, server.url)
        command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu"]
        command += [f"--user-data-dir={home / 'profile'}", "--enable-logging=stderr", "--v=0"]
        dom = run([*command, "--dump-dom", f"{server.url}/"])
        run([*command, f"--screenshot={home / 'page.png'}", f"{server.url}/"], check=True)
    assert '<span id="state">ready</span>' in dom.stdout
    assert "digits" in dom.stdout and plan.digest[:12] in dom.stdout
    assert "CONSOLE" not in dom.stderr and "Content Security Policy" not in dom.stderr
    assert (home / "page.png").stat().st_size > 5000


@pytest.fixture
def interrupted(home: Path) -> Iterator[ServerProcess]:
    with ServerProcess([home / "digits.plan"], cwd=home) as server:
        yield server


def test_an_interrupt_stops_it_cleanly(interrupted: ServerProcess) -> None:
    httpx.get(f"{interrupted.url}/v2/health/live", trust_env=False, timeout=60)
    interrupted.process.send_signal(signal.SIGINT)
    assert interrupted.process.wait(120) == 0
