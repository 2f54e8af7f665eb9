"""Uploads of keys that go wrong: a full disk, cut connections, a secret key sent by mistake."""

from __future__ import annotations

import random
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import httpx
import numpy as np

from benchmarks.service.claim import Claim, Effort
from benchmarks.service.hostile import CORPUS
from benchmarks.service.rig import ServerProcess, connection, rig, rss_mb, zoo_plan
from he_infer.client.client import Client
from he_infer.plan.file import save_plan

PIECE = 2**20


class _Upload:
    """An upload of keys that was begun, piece by piece and without the client's own retries."""

    def __init__(self, http: httpx.Client, client: Client) -> None:
        begun = http.post(f"/v2/models/{client.spec.model}/keys/uploads")
        self._http = http
        self.path: str = begun.headers["location"]
        self.total = int(begun.json()["bytes"])

    def content_range(self, start: int, size: int) -> str:
        return f"bytes {start}-{start + size - 1}/{self.total}"

    def send(self, start: int, part: bytes) -> httpx.Response:
        headers = {"content-range": self.content_range(start, len(part))}
        return self._http.patch(self.path, headers=headers, content=part)

    def received(self) -> int:
        """Bytes that the server holds of it."""
        held = self._http.get(self.path).headers.get("range")
        return 0 if held is None else int(held.rpartition("-")[2]) + 1

    def finish(self, digest: str) -> httpx.Response:
        return self._http.put(f"{self.path}?digest={digest}")


def full_disk(_effort: Effort) -> Iterator[Claim]:
    """A file system that is full in the middle of an upload of keys."""
    name, bar = "disk full during key upload", "507, no partial blob visible, recovers"
    plan = zoo_plan("digits-mlp")
    with tempfile.TemporaryDirectory() as folder:
        with _small_disk(Path(folder) / "blobs", megabytes=3) as disk:
            if disk is None:
                yield Claim(name=name, bar=bar, figure="no file system can be mounted", holds=None)
                return
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
    yield Claim(
        name=name,
        bar=bar,
        figure=f"{status} {code}, {len(partial)} partial blobs, {pieces / 1e6:.1f} MB of whole "
        f"pieces kept, recovers: {recovered}",
        holds=(status, code) == (507, "disk_full") and not partial and recovered,
    )


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
    """Status and code of the first piece that is refused, or of the end of the upload."""
    keys = client._made_keys()
    data = keys.to_bytes()
    with connection(url) as http:
        upload = _Upload(http, client)
        for start in range(0, len(data), PIECE):
            reply = upload.send(start, data[start : start + PIECE])
            if reply.status_code != 202:
                http.delete(upload.path)
                return reply.status_code, str(reply.json()["code"])
        return upload.finish(keys.digest).status_code, ""


def cut_uploads(effort: Effort) -> Iterator[Claim]:
    """Connections that break at random places of an upload, and go on where it stopped."""
    cuts = effort.of(100, 12)
    rng = random.Random(7)
    resumed = equal = 0
    with rig(zoo_plan("digits-mlp")) as (server, client, _), connection(server.url) as http:
        keys = client._made_keys()
        data = keys.to_bytes()
        before = rss_mb(server.process.pid)
        largest = before
        for _ in range(cuts):
            upload = _Upload(http, client)
            cut, sent = rng.randrange(1, len(data)), 0
            while sent < cut:
                piece = data[sent : sent + PIECE]
                _send_piece(urlsplit(server.url), upload, sent, piece, kept=cut - sent)
                sent += len(piece)
            received = upload.received()
            resumed += received <= cut
            while received < len(data):
                part = data[received : received + PIECE]
                received = upload.send(received, part).json()["received"]
            equal += upload.finish(keys.digest).status_code == 201
            largest = max(largest, rss_mb(server.process.pid))
    yield Claim(
        name="upload cut at random offsets",
        bar="all resume, digest equal, memory flat",
        figure=f"{resumed} of {cuts} resumed, {equal} with the right digest, the HTTP process "
        f"grew by {largest - before:.0f} MB",
        holds=resumed == equal == cuts and largest - before < 64,
    )


def _send_piece(
    address: SplitResult, upload: _Upload, start: int, piece: bytes, *, kept: int
) -> None:
    """Send a piece, and close the connection after ``kept`` bytes if that is less than all."""
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as line:
        head = (
            f"PATCH {upload.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(piece)}\r\n"
            f"Content-Range: {upload.content_range(start, len(piece))}\r\n\r\n"
        )
        line.sendall(head.encode() + piece[:kept])
        if kept >= len(piece):
            line.recv(4096)


def secret_canary(_effort: Effort) -> Iterator[Claim]:
    """A TenSEAL context with its secret key, posted by mistake, leaves no trace of itself."""
    secret = (CORPUS / "query_tenseal_context_with_secret.bin").read_bytes()
    with rig(zoo_plan("digits-mlp"), "--state", "state") as (server, client, query):
        with connection(server.url) as http:
            replies = [
                http.post(query.path, headers=query.headers, content=body)
                for body in (query.with_envelope(secret), secret)
            ]
            replies.append(_Upload(http, client).send(0, secret))
            codes = [reply.json()["code"] for reply in replies]
        server.stop()
        touched = [
            path.name
            for path in server.home.rglob("*")
            if path.is_file()
            and any(part in path.read_bytes() for part in (secret[-512:], secret[64:128]))
        ]
    yield Claim(
        name="secret canary",
        bar="refused; secret bytes absent from disk, logs and database",
        figure=f"{codes.count('secret_key_posted')} of {len(codes)} refused as burnt, "
        f"{len(touched)} files hold a piece of it",
        holds=set(codes) == {"secret_key_posted"} and not touched,
    )
