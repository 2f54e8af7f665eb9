"""What goes wrong around a service: dead workers, signals, full disks, slow and many clients."""

from __future__ import annotations

import os
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np

from benchmarks.service.rig import (
    Prepared,
    ServerProcess,
    connection,
    rig,
    rss_mb,
    together,
    zoo_plan,
)
from benchmarks.service.row import Effort, Row
from he_infer.client.client import Client
from he_infer.plan.file import save_plan
from he_infer.server.state import State, audit_log

_TOLERANCE = 2.0**-8
IN_FLIGHT = 6  # queries when the signal comes


def killed_workers(effort: Effort) -> list[Row]:
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
        with State.open(Path(server.log).parent / "state") as state:
            with state.database.transaction() as c:
                logged = [e for e in audit_log.entries(c, limit=10**6) if e["event"] == "answered"]
    replies = {entry["reply"] for entry in logged}
    return [
        Row(
            name="kill −9 a worker under load",
            bar="no acknowledged request lost, none wrong or duplicated",
            figure=f"{kills} kills, {len(answered):,} answered, {len(logged):,} in the log, {lost} "
            f"lost, {wrong} wrong, exit {status}",
            holds=kills > 0
            and wrong == lost == 0
            and len(answered) == len(logged) == len(replies)
            and status == 0,
        )
    ]


def sigterm(effort: Effort) -> list[Row]:
    """Readiness turns at once, what is in flight finishes, the exit status is 0."""
    del effort
    statuses: list[int] = []
    plan = zoo_plan("mnist-lola")
    with rig(plan, "--workers", "1") as (server, _, query):

        def ask(_: int) -> None:
            with connection(server.url) as http:
                statuses.append(query.post(http).status_code)

        warm = threading.Thread(target=ask, args=(0,))
        warm.start()
        warm.join()
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
    return [
        Row(
            name="SIGTERM",
            bar="ready → 503 at once, all in flight finish, exit 0",
            figure=f"unready after {1e3 * unready_s:.0f} ms, {statuses[1:].count(200)} of "
            f"{IN_FLIGHT} in flight answered, exit {status}",
            holds=unready_s < 0.5 and statuses[1:] == [200] * IN_FLIGHT and status == 0,
        )
    ]


def _admitted(http: httpx.Client) -> int:
    """Queries that are being evaluated or wait for it."""
    text = http.get("/metrics").text
    counted = r'^he_infer_(?:workers\{state="busy"\}|queries_waiting) (\S+)$'
    return sum(int(float(number)) for number in re.findall(counted, text, re.MULTILINE))


def full_disk(effort: Effort) -> list[Row]:
    """A file system that is full in the middle of an upload of keys."""
    del effort
    name, bar = "disk full during key upload", "507, no partial blob visible, recovers"
    plan = zoo_plan("digits-mlp")
    with tempfile.TemporaryDirectory() as folder:
        with _small_disk(Path(folder) / "blobs", megabytes=3) as disk:
            if disk is None:
                return [Row(name=name, bar=bar, figure="no file system can be mounted", holds=None)]
            path = Path(folder) / "m.plan"
            save_plan(plan, path)
            options = ("--state", "state", "--blobs", str(disk))
            with (
                ServerProcess([path], *options, cwd=Path(folder)) as server,
                Client.connect(server.url, model="m") as client,
            ):
                status, code = _upload_status(server.url, client)
                stored = [p for p in disk.rglob("*") if p.is_file()]
                partial = [p for p in stored if "keys" in p.parts]
                pieces = sum(p.stat().st_size for p in stored)
                subprocess.run(
                    ["mount", "-o", "remount,size=40m", str(disk)], check=True, capture_output=True
                )
                client.upload_keys()
                recovered = client.predict(np.zeros(plan.graph.input.shape)).queries == 1
    return [
        Row(
            name=name,
            bar=bar,
            figure=f"{status} {code}, {len(partial)} partial blobs, {pieces / 1e6:.1f} MB of whole "
            f"pieces kept, recovers: {recovered}",
            holds=(status, code) == (507, "disk_full") and not partial and recovered,
        )
    ]


@contextmanager
def _small_disk(folder: Path, *, megabytes: int) -> Iterator[Path | None]:
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)],
        capture_output=True,
    )
    if done.returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _upload_status(url: str, client: Client) -> tuple[int, str]:
    data, piece = client._made_keys().to_bytes(), 2**20
    with connection(url) as http:
        base = f"/v2/models/{client.spec.model}/keys/uploads"
        path = http.post(base).headers["location"]
        for start in range(0, len(data), piece):
            part = data[start : start + piece]
            given = {"content-range": f"bytes {start}-{start + len(part) - 1}/{len(data)}"}
            reply = http.patch(path, headers=given, content=part)
            if reply.status_code != 202:
                http.delete(path)
                return reply.status_code, str(reply.json()["code"])
        reply = http.put(f"{path}?digest={client._made_keys().digest}")
        return reply.status_code, ""


def cut_uploads(effort: Effort) -> list[Row]:
    """Connections that break at random places of an upload, and go on where it stopped."""
    cuts = effort.of(100, 12)
    rng = random.Random(7)
    resumed = equal = 0
    with rig(zoo_plan("digits-mlp")) as (server, client, _), connection(server.url) as http:
        keys = client._made_keys()
        data = keys.to_bytes()
        address = urlsplit(server.url)
        before = rss_mb(server.process.pid)
        largest = before
        for _ in range(cuts):
            base = f"/v2/models/{client.spec.model}/keys/uploads"
            path = http.post(base).headers["location"]
            cut, sent = rng.randrange(1, len(data)), 0
            while sent < cut:
                size = min(2**20, len(data) - sent)
                _send_piece(address.hostname, address.port, path, data, sent, size, cut - sent)
                sent += size
            found = http.get(path)
            received = int(found.headers.get("range", "bytes=0--1").rpartition("-")[2] or 0) + 1
            received = max(0, received) if "range" in found.headers else 0
            resumed += received <= cut
            while received < len(data):
                part = data[received : received + 2**20]
                given = {
                    "content-range": f"bytes {received}-{received + len(part) - 1}/{len(data)}"
                }
                received = http.patch(path, headers=given, content=part).json()["received"]
            equal += http.put(f"{path}?digest={keys.digest}").status_code == 201
            largest = max(largest, rss_mb(server.process.pid))
    return [
        Row(
            name="upload cut at random offsets",
            bar="all resume, digest equal, memory flat",
            figure=f"{resumed} of {cuts} resumed, {equal} with the right digest, the HTTP process "
            f"grew by {largest - before:.0f} MB",
            holds=resumed == equal == cuts and largest - before < 64,
        )
    ]


def _send_piece(
    host: str | None, port: int | None, path: str, data: bytes, start: int, size: int, kept: int
) -> None:
    """Send a piece, and close the connection after ``kept`` bytes if that is less than all."""
    with socket.create_connection((host or "", port or 0), timeout=10) as line:
        head = (
            f"PATCH {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n"
            f"Content-Range: bytes {start}-{start + size - 1}/{len(data)}\r\n\r\n"
        )
        line.sendall(head.encode() + data[start : start + min(size, kept)])
        if kept >= size:
            line.recv(4096)


def slow_clients(effort: Effort) -> list[Row]:
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
    return [
        Row(
            name=f"{count:,} slow connections",
            bar="honest p99 ≤ 1.5×, slow ones closed ≤ 10 s",
            figure=f"p99 {1e3 * alone:.0f} → {1e3 * beside:.0f} ms ({ratio:.2f}×), "
            f"{len(closed_after)} closed, the last after {slowest:.1f} s",
            holds=ratio <= 1.5 and len(closed_after) == count and slowest <= 10.0,
        )
    ]


def _p99(url: str, query: Prepared, count: int) -> float:
    times = []
    with connection(url) as http:
        for _ in range(count):
            start = time.perf_counter()
            assert query.post(http).status_code == 200
            times.append(time.perf_counter() - start)
    return float(np.quantile(times, 0.99))


def overload(effort: Effort) -> list[Row]:
    """Ten times as many clients as the service has places for."""
    seconds = effort.of(15, 5)
    with rig(zoo_plan("digits-mlp"), "--queue", "2") as (server, _, query):
        peak, _, _ = _load(server.url, query, seconds, clients=2)
        rate, refusals, statuses = _load(server.url, query, seconds, clients=30)
    slowest = float(np.quantile(refusals, 0.99)) if refusals else float("nan")
    return [
        Row(
            name="overload at 10× capacity",
            bar="bounded queue, 429/503 < 100 ms, goodput ≥ 90 % of peak",
            figure=f"goodput {rate:.1f} of {peak:.1f} queries/s ({rate / peak:.0%}), "
            f"{len(refusals):,} refused, p99 {1e3 * slowest:.0f} ms, statuses "
            f"{sorted(statuses)}",
            holds=rate >= 0.9 * peak and slowest < 0.1 and statuses <= {200, 429, 503},
        )
    ]


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


def audit_chain(effort: Effort) -> list[Row]:
    """The log of answers verifies, and does not once an entry was changed."""
    del effort
    with rig(zoo_plan("digits-mlp"), "--state", "state") as (server, _, query):
        with connection(server.url) as http:
            for _ in range(5):
                query.post(http)
        server.stop()
        home = Path(server.log).parent
        command = [*(sys.executable, "-m", "he_infer", "audit-log"), "--state", "state", "verify"]
        sound = subprocess.run(command, cwd=home, capture_output=True, text=True)
        with State.open(home / "state") as state, state.database.transaction() as connection_:
            connection_.exec_driver_sql(
                "UPDATE audit_log SET entry = replace(entry, 'anonymous', 'somebody') "
                "WHERE sequence = 3"
            )
        altered = subprocess.run(command, cwd=home, capture_output=True, text=True)
    named = "entry 3 was altered" in altered.stderr
    return [
        Row(
            name="hash-chained audit log",
            bar="verifies; a changed entry is named",
            figure=f"sound: exit {sound.returncode}; altered: exit {altered.returncode}, entry "
            f"named: {named}",
            holds=sound.returncode == 0 and altered.returncode != 0 and named,
        )
    ]
