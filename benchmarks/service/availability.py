"""What goes wrong around a service: dead workers, signals, full disks, slow and many clients."""

from __future__ import annotations

import os
import random
import re
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import numpy as np

from benchmarks.service.claim import Claim, Effort
from benchmarks.service.rig import (
    Prepared,
    connection,
    he_infer_command,
    rig,
    together,
    zoo_plan,
)
from he_infer.server.state import State, audit_log

_TOLERANCE = 2.0**-8
IN_FLIGHT = 6  # queries when the signal comes


def killed_workers(effort: Effort) -> Iterator[Claim]:
    """kill −9 a worker every two seconds (quick: every one) while clients ask without pause."""
    seconds = effort.of(40, 6)
    wrong, lost, kills = 0, 0, 0
    answered: list[float] = []
    with rig(zoo_plan("digits-mlp"), "--workers", "2", "--state", "state") as (server, _, query):
        stop = time.monotonic() + seconds

        def ask(_: int) -> None:
            nonlocal wrong, lost
            with connection(server.url) as http:
                while time.monotonic() < stop:
                    reply = query.post(http, key=secrets.token_hex(16))
                    if reply.status_code != 200:
                        lost += reply.status_code != 503
                        continue
                    answered.append(time.monotonic())
                    wrong += not query.error_of(reply) < _TOLERANCE

        def kill() -> None:
            nonlocal kills
            while time.monotonic() < stop - 0.5:
                time.sleep(effort.of(2, 1))
                pids = server.workers()
                if pids:
                    with suppress(ProcessLookupError):  # it left by itself just now
                        os.kill(random.choice(pids), signal.SIGKILL)
                        kills += 1

        killer = threading.Thread(target=kill)
        killer.start()
        together(3, ask)
        killer.join()
        status = server.stop()
        with State.open(server.home / "state") as state, state.database.transaction() as c:
            logged = [e for e in audit_log.entries(c, limit=10**6) if e["event"] == "answered"]
    replies = {entry["reply"] for entry in logged}
    yield Claim(
        name="kill −9 a worker under load",
        bar="no acknowledged request lost, none wrong or duplicated",
        figure=f"{kills} kills, {len(answered):,} answered, {len(logged):,} in the log, {lost} "
        f"lost, {wrong} wrong, exit {status}",
        holds=kills > 0
        and wrong == lost == 0
        and len(answered) == len(logged) == len(replies)
        and status == 0,
    )


def sigterm(_effort: Effort) -> Iterator[Claim]:
    """Readiness turns at once, what is in flight finishes, the exit status is 0."""
    statuses: list[int] = []
    plan = zoo_plan("mnist-lola")
    with rig(plan, "--workers", "1") as (server, _, query):

        def ask(_: int) -> None:
            with connection(server.url) as http:
                statuses.append(query.post(http).status_code)

        together(1, ask)  # loads the keys
        asking = [threading.Thread(target=ask, args=(i,)) for i in range(IN_FLIGHT)]
        for thread in asking:
            thread.start()
        with connection(server.url) as http:
            # Every one is in: with a worker, in the queue, or answered already.
            while _admitted(http) + len(statuses) - 1 < IN_FLIGHT:
                assert any(thread.is_alive() for thread in asking)
                time.sleep(0.002)
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        unready_s = float("nan")
        while time.monotonic() - start < 2:
            try:
                ready = httpx.get(f"{server.url}/v2/health/ready", trust_env=False, timeout=2)
            except httpx.HTTPError:
                break
            if ready.status_code == 503:
                unready_s = time.monotonic() - start
                break
        for thread in asking:
            thread.join()
        status = server.stop()
    yield Claim(
        name="SIGTERM",
        bar="ready → 503 at once, all in flight finish, exit 0",
        figure=f"unready after {1e3 * unready_s:.0f} ms, {statuses[1:].count(200)} of "
        f"{IN_FLIGHT} in flight answered, exit {status}",
        holds=unready_s < 0.5 and statuses[1:] == [200] * IN_FLIGHT and status == 0,
    )


def _admitted(http: httpx.Client) -> int:
    """Queries that are being evaluated or wait for it."""
    text = http.get("/metrics").text
    counted = r'^he_infer_(?:workers\{state="busy"\}|queries_waiting) (\S+)$'
    return sum(int(float(number)) for number in re.findall(counted, text, re.MULTILINE))


def slow_clients(effort: Effort) -> Iterator[Claim]:
    """A thousand connections that send a byte now and then, beside an honest client."""
    count = effort.of(1000, 200)
    with rig(zoo_plan("digits-mlp")) as (server, _, query):
        address = urlsplit(server.url)
        alone = _p99(server.url, query, effort.of(200, 40))
        lines = []
        opened = time.monotonic()
        for index in range(count):
            line = socket.create_connection((address.hostname or "", address.port or 0))
            line.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n")
            if index % 2:  # headers that end, and a body that hardly moves
                rest = "".join(f"{k}: {v}\r\n" for k, v in query.headers.items())
                rest += f"Content-Length: {len(query.body)}\r\n\r\n"
                line.sendall(rest.encode() + query.body[:40])
            line.setblocking(False)
            lines.append(line)
        beside = _p99(server.url, query, effort.of(200, 40))
        closed_after: list[float] = []
        pending = set(lines)
        while pending and time.monotonic() - opened < 25:
            for line in list(pending):
                try:
                    line.send(b"x")
                    if line.recv(4096) == b"":
                        raise OSError
                except BlockingIOError:
                    continue
                except OSError:
                    pending.discard(line)
                    closed_after.append(time.monotonic() - opened)
            time.sleep(0.25)
        for line in lines:
            line.close()
    slowest = max(closed_after, default=float("inf"))
    ratio = beside / alone
    yield Claim(
        name=f"{count:,} slow connections",
        bar="honest p99 ≤ 1.5×, slow ones closed ≤ 10 s",
        figure=f"p99 {1e3 * alone:.0f} → {1e3 * beside:.0f} ms ({ratio:.2f}×), "
        f"{len(closed_after)} closed, the last after {slowest:.1f} s",
        holds=ratio <= 1.5 and len(closed_after) == count and slowest <= 10.0,
    )


def _p99(url: str, query: Prepared, count: int) -> float:
    times = []
    with connection(url) as http:
        for _ in range(count):
            start = time.perf_counter()
            assert query.post(http).status_code == 200
            times.append(time.perf_counter() - start)
    return float(np.quantile(times, 0.99))


def overload(effort: Effort) -> Iterator[Claim]:
    """Ten times as many clients as the service has places for."""
    seconds = effort.of(15, 5)
    with rig(zoo_plan("digits-mlp"), "--queue", "2") as (server, _, query):
        peak, _, _ = _load(server.url, query, seconds, clients=2)
        rate, refusals, statuses = _load(server.url, query, seconds, clients=30)
    slowest = float(np.quantile(refusals, 0.99)) if refusals else float("nan")
    yield Claim(
        name="overload at 10× capacity",
        bar="bounded queue, 429/503 < 100 ms, goodput ≥ 90 % of peak",
        figure=f"goodput {rate:.1f} of {peak:.1f} queries/s ({rate / peak:.0%}), "
        f"{len(refusals):,} refused, p99 {1e3 * slowest:.0f} ms, statuses "
        f"{sorted(statuses)}",
        holds=rate >= 0.9 * peak and slowest < 0.1 and statuses <= {200, 429, 503},
    )


def _load(
    url: str, query: Prepared, seconds: float, *, clients: int
) -> tuple[float, list[float], set[int]]:
    done, refusals, statuses = [], [], set()
    stop = time.monotonic() + seconds

    def ask(_: int) -> None:
        # The load stands for other machines: it must not take this one's cores from the server.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 15)
        with connection(url) as http:
            while time.monotonic() < stop:
                start = time.perf_counter()
                reply = query.post(http)
                took = time.perf_counter() - start
                statuses.add(reply.status_code)
                if reply.status_code == 200:
                    done.append(took)
                else:
                    refusals.append(took)
                    # Less patient than it was asked to be, by a factor of four.
                    time.sleep(0.25 * float(reply.headers.get("retry-after", "1")))

    together(clients, ask)
    return len(done) / seconds, refusals, statuses


def audit_chain(_effort: Effort) -> Iterator[Claim]:
    """The log of answers verifies, and does not once an entry was changed."""
    with rig(zoo_plan("digits-mlp"), "--state", "state") as (server, _, query):
        with connection(server.url) as http:
            for _ in range(5):
                query.post(http)
        server.stop()
        verify = ("audit-log", "--state", "state", "verify")
        sound = he_infer_command(server.home, *verify, check=False)
        with State.open(server.home / "state") as state, state.database.transaction() as c:
            c.exec_driver_sql(
                "UPDATE audit_log SET entry = replace(entry, 'anonymous', 'somebody') "
                "WHERE sequence = 3"
            )
        altered = he_infer_command(server.home, *verify, check=False)
    named = "entry 3 was altered" in altered.stderr
    yield Claim(
        name="hash-chained audit log",
        bar="verifies; a changed entry is named",
        figure=f"sound: exit {sound.returncode}; altered: exit {altered.returncode}, entry "
        f"named: {named}",
        holds=sound.returncode == 0 and altered.returncode != 0 and named,
    )
