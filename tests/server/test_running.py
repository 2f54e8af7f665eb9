"""The server on a real socket: headers that never end, refusals mid-upload, SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from he_infer.cli import certificates
from he_infer.client.key_sender import KeySender
from he_infer.client.retries import RetryPolicy
from he_infer.client.transport import HttpTransport, Request
from he_infer.errors import ServiceError
from he_infer.server import BackgroundServer, InferenceService, Settings
from he_infer.server.http_server import Server, listen
from he_infer.server.running import _check_access
from he_infer.server.state import State
from he_infer.server.tls import Tls
from he_infer.server.workers.workers import ThreadPool, Workers
from tests.paths import CHECKOUT
from tests.server.fakes import KEYS, KEYS_DIGEST, FakeHost, query_request

INFER = "/v2/models/toy/infer"
# What is to end within a second has this long: it guards against waiting for ever, and is below
# the minute that asyncio gives a TLS handshake by itself.
PATIENCE_S = 50.0
HEADER_S = 1.0


@pytest.fixture
def server() -> Iterator[BackgroundServer]:
    with BackgroundServer([FakeHost()], settings=Settings(drain_notice_s=0.0)) as running:
        yield running


@pytest.fixture
def impatient() -> Iterator[BackgroundServer]:
    """Gives senders little time: only for tests of clients that do not come up to it."""
    quick = Settings(drain_notice_s=0.0, header_timeout_s=HEADER_S, body_grace_s=0.3)
    with BackgroundServer([FakeHost()], settings=quick) as running:
        yield running


def connect(server: BackgroundServer) -> socket.socket:
    address = urlsplit(server.url)
    assert address.hostname == "127.0.0.1" and address.port
    return socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S)


def test_a_conversation_over_a_socket(server: BackgroundServer) -> None:
    with httpx.Client(base_url=server.url, trust_env=False) as http:
        assert http.get("/v2/health/ready").json() == {"ready": True}
        with HttpTransport(server.url) as transport:
            KeySender(transport, "toy", retries=RetryPolicy()).send(KEYS[0], KEYS_DIGEST)
        headers, body = query_request(FakeHost())
        assert http.post("/v2/models/toy/infer", headers=headers, content=body).status_code == 200


@pytest.mark.parametrize("sent", [b"", b"GET /v2 HTTP/1.1\r\nHost: x\r\nX-A: "])
def test_headers_that_do_not_come_close_the_connection(
    impatient: BackgroundServer, sent: bytes
) -> None:
    async def timeout_s() -> float:
        return impatient._server._protocol()._header_timeout_s

    assert asyncio.run(timeout_s()) == HEADER_S
    with connect(impatient) as line:
        line.sendall(sent)
        start = time.monotonic()
        assert line.recv(1000) == b""
        assert time.monotonic() - start < PATIENCE_S


def test_dripping_later_headers_closes_the_connection(impatient: BackgroundServer) -> None:
    with connect(impatient) as line:
        line.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in line.recv(10_000)
        start = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - start < PATIENCE_S:
                line.sendall(b"G")
                time.sleep(0.05)
        assert time.monotonic() - start < PATIENCE_S


def test_a_body_that_stalls_gets_408(impatient: BackgroundServer) -> None:
    headers, body = query_request(FakeHost())
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with connect(impatient) as line:
        line.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode() + body[:100])
        assert line.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_a_huge_body_is_refused_while_it_is_sent(server: BackgroundServer) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(65536)

    headers, _ = query_request(FakeHost())
    with httpx.Client(base_url=server.url, trust_env=False, timeout=PATIENCE_S) as http:
        headers["content-length"] = str(10**12)
        reply = http.post(INFER, headers=headers, content=endless())
    assert (reply.status_code, reply.json()["code"]) == (413, "too_large")


def test_chunked_bodies_are_refused(server: BackgroundServer) -> None:
    with httpx.Client(base_url=server.url, trust_env=False) as http:
        reply = http.post(INFER, content=iter([b"x"]))
    assert (reply.status_code, reply.json()["code"]) == (411, "length_required")


def test_a_taken_port_is_a_typed_error(server: BackgroundServer) -> None:
    port = urlsplit(server.url).port
    assert port
    with pytest.raises(ServiceError, match="choose another port"):
        listen("127.0.0.1", port)


def test_sigterm_finishes_what_is_in_flight_and_exits_0() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.server.serve_fake"],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stdin is not None
        url = process.stdout.readline().strip()
        replies: list[httpx.Response] = []
        with httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_S) as http:
            with HttpTransport(url) as transport:
                KeySender(transport, "toy", retries=RetryPolicy()).send(KEYS[0], KEYS_DIGEST)

            def query() -> None:
                headers, body = query_request(FakeHost())
                replies.append(http.post("/v2/models/toy/infer", headers=headers, content=body))

            thread = threading.Thread(target=query)
            thread.start()
            assert process.stdout.readline() == "evaluating\n"
            process.send_signal(signal.SIGTERM)
            # The evaluation goes on until it is told to end, so the server has to stay.
            deadline = time.monotonic() + PATIENCE_S
            while (ready := http.get("/v2/health/ready")).status_code == 200:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert (ready.status_code, ready.json()) == (503, {"ready": False})
            process.stdin.write("\n")
            process.stdin.flush()
            thread.join(timeout=PATIENCE_S)
        assert [reply.status_code for reply in replies] == [200]
        assert process.wait(timeout=PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def test_a_handshake_that_does_not_come_closes_the_connection(tmp_path: Path) -> None:
    certificates.make_authority(tmp_path / "pki")
    made = certificates.issue_server(tmp_path / "pki", ["127.0.0.1"])
    settings = Settings(drain_notice_s=0.0, header_timeout_s=HEADER_S)
    with State.open() as state, listen("127.0.0.1", 0) as listener:
        service = InferenceService(
            Workers(ThreadPool([FakeHost()], state.blobs, settings), settings), state, settings
        )
        tls = Tls(certificate=made.certificate, private_key=made.private_key)
        server = Server(service, listener, tls=tls)
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]))
        thread.start()
        try:
            with socket.create_connection(listener.getsockname()[:2], timeout=PATIENCE_S) as line:
                start = time.monotonic()
                assert line.recv(100) == b""
                assert time.monotonic() - start < PATIENCE_S
            with HttpTransport(server.url, authority=tmp_path / "pki" / "ca.pem") as transport:
                assert transport.request(Request(method="GET", path="/v2")).status == 200
        finally:
            server.stop()
            thread.join(timeout=PATIENCE_S)
            service.close()


def test_only_addresses_that_others_reach_are_exposed() -> None:
    guarded = Settings(tokens_required=True)
    assert [_check_access(host, guarded) for host in ("localhost", "::1", "0.0.0.0", "db")] == [
        False,
        False,
        True,
        True,
    ]
    with pytest.raises(ServiceError, match="require tokens"):
        _check_access("0.0.0.0", Settings())
