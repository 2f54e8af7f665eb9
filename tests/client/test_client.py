"""The client against servers that are absent, lie about a model or send false replies."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from he_infer.client.client import Client
from he_infer.client.key_sender import PIECE_BYTES
from he_infer.client.messages import Limits, fetch_spec
from he_infer.client.retries import RetryPolicy
from he_infer.client.transport import Request, Response
from he_infer.errors import (
    MismatchError,
    ParameterError,
    RefusedError,
    ServiceError,
    TooLargeError,
    WireError,
)
from he_infer.keys.secret import SecretKeys
from he_infer.params import CKKSParams
from he_infer.plan.client_spec import ClientSpec
from he_infer.wire import Ciphertext, Expected, write_envelope
from he_infer.wire.key_levels import KeyLevels
from he_infer.wire.protocol import HEAD_LENGTH_HEADER, reply_head

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

    # What a server refuses for a while is asked for again at once.
    retries = RetryPolicy(first_wait_s=0.001)
    made.append(Client.connect(Scripted(reply=answer), model="toy", keys=keys, retries=retries))
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
    from he_infer.keys import seal_bytes

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
    retries = RetryPolicy(attempts=1)
    client = Client.connect(Scripted(head=status), model="toy", keys=keys, retries=retries)
    with pytest.raises(RefusedError, match=words):
        client.predict(np.ones(4))
