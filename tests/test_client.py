"""The client against servers that are absent, lie about a model or send false replies."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from he_infer import certificates
from he_infer.client import Client
from he_infer.client_keys import PIECE_BYTES
from he_infer.client_messages import Limits, fetch_spec
from he_infer.client_spec import ClientSpec
from he_infer.errors import (
    MismatchError,
    ParameterError,
    RefusedError,
    ServiceError,
    TooLargeError,
    UnreachableError,
    WireError,
)
from he_infer.inference_protocol import HEAD_LENGTH_HEADER, reply_head
from he_infer.keys import SecretKeys
from he_infer.params import CKKSParams
from he_infer.patience import Patience
from he_infer.transport import HttpTransport, Request, Response
from he_infer.wire import Ciphertext, Expected, write_envelope
from he_infer.wire.key_levels import KeyLevels

PARAMS = CKKSParams.from_bits(4096, [35, 30], special_bits=40)
SCALE = 2.0**30
Answer = Callable[[Request], Response]


def make_spec() -> ClientSpec:
    return ClientSpec(
        model="toy",
        plan_digest="a" * 64,
        params=PARAMS,
        input_shape=(4,),
        n_outputs=3,
        batch=2,
        input_slots=np.resize(np.arange(4, dtype=np.int32), (1, 1024)),
        output_slots=np.arange(3, dtype=np.int32),
        n_output_ciphertexts=1,
        input_scale=SCALE,
        output_scale=SCALE,
        output_level=0,
        key_levels=KeyLevels.full(PARAMS, [1, 2]),
        input_range=(0.0, 1.0),
    )


class Scripted:
    """A server in a function: metadata as given, keys taken, one reply for all queries."""

    def __init__(
        self,
        *,
        metadata: Any = None,
        reply: Answer | None = None,
        head: int = 404,
        piece: Answer | None = None,
    ) -> None:
        spec = {"name": "toy", "parameters": {"client_spec": make_spec().to_json()}}
        self._metadata = spec if metadata is None else metadata
        self._reply, self._head, self._piece = reply, head, piece
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []

    def request(self, request: Request) -> Response:
        self.asked.append((request.method, request.path))
        if request.open_body is not None:
            chunks = list(request.open_body())
            assert sum(map(len, chunks)) == request.body_bytes
            assert max(map(len, chunks)) <= PIECE_BYTES
            self.bodies.append(b"".join(chunks))
        match request.method:
            case "POST" if request.path.endswith("/keys/uploads"):
                return Response(status=202, headers={}, body=b'{"upload": "%s"}' % (b"0" * 32))
            case "PATCH" if self._piece is not None:
                return self._piece(request)
            case "PATCH":
                return Response(status=202, headers={}, body=b"{}")
            case "GET":
                return Response(status=200, headers={}, body=json.dumps(self._metadata).encode())
            case "HEAD":
                return Response(status=self._head, headers={}, body=b"")
            case "PUT":
                return Response(status=201, headers={}, body=b"{}")
        assert self._reply is not None
        return self._reply(request)


@pytest.fixture(scope="module")
def keys() -> SecretKeys:
    return SecretKeys.generate(PARAMS)


def reply_with(
    keys_digest: str, *, plan: str = "a" * 64, seed: int = 0, head: bytes | None = None
) -> Response:
    """A well-formed reply of random residues."""
    expected = Expected.reply(
        PARAMS, plan_digest=plan, keys_digest=keys_digest, count=1, scale=SCALE
    )
    rng = np.random.default_rng(seed)
    residues = rng.integers(0, PARAMS.primes[0], (2, 1, PARAMS.n), dtype=np.uint64)
    envelope = write_envelope([Ciphertext(residues=residues, scale=SCALE)], expected)
    if head is None:
        head = reply_head(
            len(envelope), model="toy", version="a" * 12, request="r", evaluate_ms=12.5
        )
    return Response(status=200, headers={HEAD_LENGTH_HEADER: str(len(head))}, body=head + envelope)


def connected(keys: SecretKeys, alter: Callable[[Response], Response]) -> Client:
    made: list[Client] = []

    def answer(_: Request) -> Response:
        return alter(reply_with(made[0]._made_keys().digest))

    made.append(Client.connect(Scripted(reply=answer), model="toy", keys=keys))
    return made[0]


def test_batches_are_split_and_keys_sent_once(keys: SecretKeys) -> None:
    client = connected(keys, lambda response: response)
    prediction = client.predict(np.ones((5, 4)))
    assert prediction.queries == 3
    assert prediction.logits.shape == (5, 3)
    assert prediction.timings.evaluate_ms == pytest.approx(3 * 12.5)
    server = client._transport
    assert isinstance(server, Scripted)
    pieces = -(-len(client._made_keys().to_bytes()) // PIECE_BYTES)
    assert [m for m, _ in server.asked] == [
        "GET",
        "HEAD",
        "POST",
        *["PATCH"] * pieces,
        "PUT",
        "POST",
        "POST",
        "POST",
    ]
    # All but the metadata is asked of the version that the client was made for.
    versioned = f"/v2/models/toy/versions/{'a' * 12}/"
    assert all(path.startswith(versioned) for _, path in server.asked[1:])
    assert b"".join(server.bodies[:pieces]) == client._made_keys().to_bytes()


def test_no_body_that_is_sent_holds_the_secret(keys: SecretKeys) -> None:
    from he_infer import seal_bytes

    client = connected(keys, lambda response: response)
    client.predict(np.ones(4))
    server = client._transport
    assert isinstance(server, Scripted)
    secret = seal_bytes.dump_secret_key(PARAMS, keys._secret)[0]
    needle = secret[:8].tobytes()
    assert all(needle not in body for body in server.bodies)
    # A needle that is there is found: the check can fail.
    assert needle in b"".join([b"x", secret.tobytes()])


ALTERATIONS: dict[str, Callable[[Response], Response]] = {
    "truncated": lambda r: Response(status=200, headers=r.headers, body=r.body[:-1]),
    "trailing": lambda r: Response(status=200, headers=r.headers, body=r.body + b"\0"),
    "empty": lambda r: Response(status=200, headers=r.headers, body=b""),
    "no head length": lambda r: Response(status=200, headers={}, body=r.body),
    "head length of nonsense": lambda r: Response(
        status=200, headers={HEAD_LENGTH_HEADER: "-1"}, body=r.body
    ),
    "wrong plan": lambda r: reply_with("e" * 64, plan="b" * 64),
    "wrong keys": lambda r: reply_with("e" * 64),
    "residues out of range": lambda r: Response(
        status=200, headers=r.headers, body=r.body[:-64] + b"\xff" * 64
    ),
    "head is not JSON": lambda r: Response(
        status=200, headers=r.headers, body=b"{" * 9 + r.body[9:]
    ),
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_false_replies_are_refused_before_seal_sees_them(
    keys: SecretKeys, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connected(keys, ALTERATIONS[name])
    reached: list[object] = []
    monkeypatch.setattr(SecretKeys, "decrypt", lambda self, frame: reached.append(frame))
    with pytest.raises(WireError):
        client.predict(np.ones(4))
    assert not reached


def falsified(path: list[Any], value: Any) -> dict[str, Any]:
    spec = copy.deepcopy(make_spec().to_json())
    place: Any = spec
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return {"name": "toy", "parameters": {"client_spec": spec}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["batch"], 0),
        (["batch"], 10**12),
        (["batch"], 3),
        (["n_outputs"], 10**9),
        (["n_output_ciphertexts"], 10**9),
        (["input_slots", 0], [[0, 0, 10**9]]),
        (["input_slots", 0], [[5, 0, 1024]]),
        (["output_slots"], [0, 1, 10**9]),
        (["key_levels", "rotations"], [[step, 1] for step in range(5000)]),
        (["params", "n"], 2**30),
        (["params", "primes"], [2**61 - 1]),
        (["params", "special_prime"], (1 << 59) + 1),
        (["input_scale"], -1.0),
        (["output_scale"], 0.0),
        (["output_level"], 7),
        (["plan_digest"], "../x"),
        (["model"], "x" * 1000),
        (["input_shape"], [10**9, 10**9]),
        (["input_range"], []),
        (["version"], 99),
    ],
)
def test_an_absurd_spec_is_refused(path: list[Any], value: Any) -> None:
    with pytest.raises((WireError, ParameterError)):
        fetch_spec(Scripted(metadata=falsified(path, value)), "toy")


@pytest.mark.parametrize("metadata", [[], {}, {"parameters": 3}, {"parameters": {}}, "x", math.pi])
def test_metadata_without_a_spec_is_refused(metadata: Any) -> None:
    with pytest.raises(WireError):
        fetch_spec(Scripted(metadata=metadata), "toy")


def test_messages_larger_than_the_limits_are_refused() -> None:
    for limits in (Limits(query_bytes=10), Limits(reply_bytes=10), Limits(keys_bytes=10)):
        with pytest.raises(TooLargeError):
            fetch_spec(Scripted(), "toy", limits=limits)


def test_another_model_or_other_keys_are_a_mismatch() -> None:
    with pytest.raises(MismatchError):
        fetch_spec(Scripted(), "other")
    others = SecretKeys.generate(CKKSParams.from_bits(4096, [36, 30], special_bits=40))
    with pytest.raises(MismatchError):
        Client.connect(Scripted(), model="toy", keys=others)
    with pytest.raises(WireError):
        fetch_spec(Scripted(), "../../metrics")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error": "no", "code": "busy"}', "busy"),
        (b'{"error": "a\\u001b[31m", "code": "x"}', "x"),
        (b"<html>", "unknown"),
        (b"[" * 100_000, "unknown"),
        (b"", "unknown"),
    ],
)
def test_a_refusal_is_typed_whatever_its_body(keys: SecretKeys, body: bytes, code: str) -> None:
    refusal = Response(status=503, headers={}, body=body)
    client = connected(keys, lambda _: refusal)
    with pytest.raises(RefusedError) as caught:
        client.predict(np.ones(4))
    assert (caught.value.status, caught.value.code) == (503, code)
    assert str(caught.value).isprintable()


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


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
            with connection:
                self.connections += 1
                connection.recv(65536)
                connection.sendall(script)

    def close(self) -> None:
        self._thread.join(timeout=5)
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


@pytest.mark.parametrize("end", [0, 1, 7])
def test_a_server_that_takes_no_piece_does_not_hold_a_client(keys: SecretKeys, end: int) -> None:
    ranges = {} if end == 0 else {"range": f"bytes=0-{end - 1}"}
    server = Scripted(piece=lambda _: Response(status=416, headers=ranges, body=b""))
    client = Client.connect(server, model="toy", keys=keys)
    with pytest.raises(ServiceError, match="does not get on"):
        client.upload_keys()
    assert len(server.asked) < 20


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "give a token"), (410, "connect again"), (503, "busy or stopping")],
)
def test_a_refusal_without_a_body_says_what_to_do(
    keys: SecretKeys, status: int, words: str
) -> None:
    patience = Patience(attempts=1)
    client = Client.connect(Scripted(head=status), model="toy", keys=keys, patience=patience)
    with pytest.raises(RefusedError, match=words):
        client.predict(np.ones(4))


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
        self._thread.join(timeout=5)
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
    with HttpTransport(server.url, exchange_s=0.3, timeout_s=20) as transport:
        with pytest.raises(ServiceError, match="in time") as caught:
            transport.request(Request(method="GET", path="/v2", max_reply_bytes=1000))
    assert not isinstance(caught.value, UnreachableError)  # asking again would begin anew
    assert time.monotonic() - start < 5
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
    with HttpTransport(url, exchange_s=0.3, timeout_s=20) as transport:
        request = Request(method="GET", path="/v2", max_reply_bytes=100)
        assert transport.request(request).status == 200
        with pytest.raises(ServiceError, match="in time"):
            transport.request(request)
    thread.join(timeout=5)
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
