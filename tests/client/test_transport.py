"""The transport against servers that are absent, broken, endless or not trusted."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from he_infer.cli import certificates
from he_infer.client.transport import HttpTransport, Request
from he_infer.errors import ParameterError, ServiceError, TooLargeError, UnreachableError

PATIENCE_S = 60.0  # guards against waiting for ever, on a machine however busy


@pytest.fixture
def closed_port() -> Iterator[int]:
    # Bound for as long as the test runs, so that nobody else listens there.
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


def test_no_server_is_unreachable(closed_port: int) -> None:
    with HttpTransport(f"http://127.0.0.1:{closed_port}", pause_s=0.01) as transport:
        with pytest.raises(UnreachableError):
            transport.request(Request(method="GET", path="/v2"))


@pytest.mark.parametrize("url", ["ftp://x", "nonsense", "http://", "http://[::1"])
def test_a_false_address_is_refused(url: str) -> None:
    with pytest.raises(ParameterError):
        HttpTransport(url)


class Line:
    """A raw server that answers each connection with the next script and counts them."""

    def __init__(self, scripts: list[bytes]) -> None:
        self._scripts = scripts
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for script in self._scripts:
            connection, _ = self._listener.accept()
            # A client that has heard enough hangs up, perhaps before all is said.
            with connection, contextlib.suppress(OSError):
                self.connections += 1
                connection.recv(65536)
                connection.sendall(script)

    def close(self) -> None:
        self._thread.join(timeout=PATIENCE_S)
        self._listener.close()


@pytest.fixture
def line() -> Iterator[Callable[[list[bytes]], Line]]:
    made: list[Line] = []

    def start(scripts: list[bytes]) -> Line:
        made.append(Line(scripts))
        return made[-1]

    yield start
    for one in made:
        one.close()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def test_a_broken_connection_is_retried(line: Callable[[list[bytes]], Line]) -> None:
    server = line([b"", b"", OK])
    with HttpTransport(server.url, pause_s=0.01) as transport:
        assert transport.request(Request(method="GET", path="/v2")).body == b"{}"
    assert server.connections == 3


def test_an_answer_is_never_retried(line: Callable[[list[bytes]], Line]) -> None:
    server = line([OK.replace(b"200 OK", b"503 No")])
    with HttpTransport(server.url, pause_s=0.01) as transport:
        assert transport.request(Request(method="GET", path="/v2")).status == 503
    assert server.connections == 1


def test_a_reply_that_does_not_end_is_cut(line: Callable[[list[bytes]], Line]) -> None:
    server = line([b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + bytes(100_000)])
    with HttpTransport(server.url, pause_s=0.01) as transport, pytest.raises(TooLargeError):
        transport.request(Request(method="GET", path="/v2", max_reply_bytes=50_000))


def test_an_encoded_reply_is_not_inflated(line: Callable[[list[bytes]], Line]) -> None:
    import gzip

    packed = gzip.compress(bytes(10_000_000))
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    server = line([head.encode() + packed])
    with HttpTransport(server.url) as transport:
        reply = transport.request(Request(method="GET", path="/v2"))
    assert reply.body == packed


class Dripper:
    """A raw server that says something every few milliseconds, for ever."""

    def __init__(self, first: bytes, more: bytes) -> None:
        self._first, self._more = first, more
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(self._first)
            while True:
                connection.sendall(self._more)
                time.sleep(0.02)

    def close(self) -> None:
        self._thread.join(timeout=PATIENCE_S)
        assert not self._thread.is_alive()
        self._listener.close()


@pytest.mark.parametrize(
    ("first", "more"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    ],
)
def test_an_answer_that_never_ends_is_given_up(first: bytes, more: bytes) -> None:
    server = Dripper(first, more)
    start = time.monotonic()
    with HttpTransport(server.url, exchange_s=0.3, timeout_s=PATIENCE_S) as transport:
        with pytest.raises(ServiceError, match="in time") as caught:
            transport.request(Request(method="GET", path="/v2", max_reply_bytes=1000))
    assert not isinstance(caught.value, UnreachableError)  # asking again would begin anew
    assert time.monotonic() - start < PATIENCE_S
    server.close()


def test_the_second_exchange_of_a_connection_is_watched_too() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(OK)
            connection.recv(65536)
            while connection.recv(65536):
                pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with HttpTransport(url, timeout_s=PATIENCE_S) as transport:
        request = Request(method="GET", path="/v2", max_reply_bytes=100)
        assert transport.request(request).status == 200
        transport._exchange_s = 0.3  # for the second alone: the first has to be in time
        with pytest.raises(ServiceError, match="in time"):
            transport.request(request)
    thread.join(timeout=PATIENCE_S)
    listener.close()


def tls_line(folder: Path, *, wants_certificate: bool = False) -> tuple[socket.socket, str]:
    """A TLS server that shakes hands, with an authority in ``folder``, until it is closed."""
    certificates.make_authority(folder)
    made = certificates.issue_server(folder, ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.private_key)
    if wants_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(folder / "ca.pem")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                with context.wrap_socket(connection, server_side=True) as spoken:
                    spoken.recv(65536)
                    spoken.sendall(OK)

    threading.Thread(target=serve, daemon=True).start()
    return listener, f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("scheme", "trusted", "wants", "words"),
    [
        ("https", False, False, "is not trusted"),
        ("https", True, True, "wants a client's certificate"),
        ("http", True, False, "write https://"),
    ],
)
def test_what_tls_did_not_like_is_said(
    tmp_path: Path, scheme: str, trusted: bool, wants: bool, words: str
) -> None:
    folder = tmp_path / "pki"
    listener, address = tls_line(folder, wants_certificate=wants)
    authority = folder / "ca.pem" if trusted else None
    with HttpTransport(f"{scheme}://{address}", authority=authority, pause_s=0.01) as transport:
        with pytest.raises(UnreachableError, match=words):
            transport.request(Request(method="GET", path="/v2"))
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_https_to_a_plain_server_is_said(line: Callable[[list[bytes]], Line]) -> None:
    server = line([b"HTTP/1.1 400 Bad Request\r\n\r\n"])
    with HttpTransport(server.url.replace("http", "https")) as transport:
        with pytest.raises(UnreachableError, match="write http://"):
            transport.request(Request(method="GET", path="/v2"))
    assert server.connections == 1  # asking again would not help


def test_an_empty_token_is_refused() -> None:
    with pytest.raises(ParameterError):
        HttpTransport("http://127.0.0.1:1", token="")
