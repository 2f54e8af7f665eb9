"""The client encrypts records, asks a server and decrypts what it answers::

    client = Client.connect("http://127.0.0.1:8000", model="digits-mlp")
    prediction = client.predict(images)

The server is not trusted. What it says about a model is bounded before anything is allocated, and
its replies are parsed strictly before SEAL sees them. It can still answer wrongly on purpose, see
``canaries``.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from he_infer.client.key_sender import KeySender
from he_infer.client.messages import Limits, expect_status, fetch_spec, refusal_in
from he_infer.client.release import DEFAULT_BITS, release
from he_infer.client.retries import RetryPolicy, ask
from he_infer.client.transport import HttpTransport, Request, Response, Transport
from he_infer.errors import InputError, MismatchError, WireError
from he_infer.keys.evaluation import EvaluationKeys
from he_infer.keys.secret import SecretKeys
from he_infer.plan.client_spec import (
    ClientSpec,
    FloatArray,
    expected_query,
    expected_reply,
)
from he_infer.progress import Progress
from he_infer.wire import Ciphertext, Expected, SeededCiphertext, read_envelope
from he_infer.wire import protocol as protocol
from he_infer.wire.frames import write_frame

_CHUNK_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Milliseconds, summed over the queries; ``exchange_ms`` includes ``evaluate_ms``.

    ``evaluate_ms`` is what the server says, NaN if it does not.
    """

    encrypt_ms: float
    exchange_ms: float
    evaluate_ms: float
    decrypt_ms: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """Answers to some records: ``logits`` (batch, outputs), ``labels`` (batch,) their argmax.

    ``slots``: everything that was decrypted, (output ciphertexts of all queries in a row, N/2);
    ``level``, ``scale``: of the reply ciphertexts. Bytes count bodies, both ways; keys are not
    included.
    """

    logits: NDArray[np.float64]
    labels: NDArray[np.int64]
    slots: NDArray[np.float64]
    level: int
    scale: float
    timings: Timings
    queries: int
    bytes_sent: int
    bytes_received: int


class Client:
    """Queries one model of one server under one secret key; made by :meth:`connect`.

    ``strict`` refuses values outside the calibrated range instead of warning. Not safe to
    share among threads. Errors and retries never depend on what was decrypted.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        spec: ClientSpec,
        keys: SecretKeys,
        strict: bool = False,
        retries: RetryPolicy | None = None,
        progress: Progress | None = None,
    ) -> None:
        if keys.params != spec.params:
            raise MismatchError(
                "these keys were made for other parameters than the model's: make keys for it"
            )
        self._transport = transport
        self._spec = spec
        self._keys = keys
        self._strict = strict
        self._retries = retries or RetryPolicy()
        self._progress = progress
        # Another version may be the default by now: we were made for this one.
        self._version = protocol.version_of(spec.plan_digest)
        self._sender = KeySender(
            transport, spec.model, version=self._version, retries=self._retries, progress=progress
        )
        self._evaluation_keys: EvaluationKeys | None = None
        self._uploaded = False

    @classmethod
    def connect(
        cls,
        server: str | Transport,
        *,
        model: str,
        keys: SecretKeys | None = None,
        evaluation_keys: EvaluationKeys | None = None,
        plan_digest: str | None = None,
        strict: bool = False,
        limits: Limits | None = None,
        retries: RetryPolicy | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Fetch what ``model`` needs and be ready to predict; keys are uploaded when missing.

        ``server``: an address or a transport. ``keys`` None draws a fresh secret for this
        client. ``evaluation_keys``: made before from ``keys``; made when needed if None.
        ``plan_digest`` pins the plan: MismatchError if the server has another one.
        ``retries``: how often and how long to wait for a server that is busy or stopping.
        """
        with ExitStack() as on_failure:
            transport: Transport
            if isinstance(server, str):
                transport = on_failure.enter_context(HttpTransport(server))
            else:
                transport = server
            spec = fetch_spec(transport, model, limits=limits)
            if plan_digest is not None and spec.plan_digest != plan_digest:
                raise MismatchError("the server runs another plan than the one asked for")
            chosen = SecretKeys.generate(spec.params, progress=progress) if keys is None else keys
            client = cls(
                transport,
                spec=spec,
                keys=chosen,
                strict=strict,
                retries=retries,
                progress=progress,
            )
            if evaluation_keys is not None:
                client.use_evaluation_keys(evaluation_keys)
            on_failure.pop_all()
            return client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, if the transport has one."""
        close: Callable[[], None] | None = getattr(self._transport, "close", None)
        if close is not None:
            close()

    @property
    def spec(self) -> ClientSpec:
        return self._spec

    @property
    def keys(self) -> SecretKeys:
        return self._keys

    def predict(self, records: ArrayLike) -> Prediction:
        """Answers for records ``(batch, *input_shape)``, or for one without the batch axis.

        Larger batches go in several queries. Raises InputError or OutOfRangeError before
        anything is sent; UnreachableError, RefusedError or WireError after.
        """
        array = np.asarray(records)
        if array.shape == self._spec.input_shape:
            array = array[None]
        if array.ndim == 0 or len(array) == 0:
            raise InputError("expected at least one record")
        size = self._spec.batch
        parts = []
        for first in range(0, len(array), size):
            parts.append(self._spec.check(array[first : first + size], strict=self._strict))
        self.upload_keys()
        answers = []
        for index, part in enumerate(parts):
            answers.append(self._query(part))
            if self._progress is not None:
                self._progress("queries", index + 1, len(parts))
        return _joined(answers)

    def release(self, prediction: Prediction, *, bits: int = DEFAULT_BITS) -> FloatArray:
        """The logits (batch, outputs) with noise of their own and rounded, fit to be shown.

        A decryption that is shown as it is can give the secret key away. See
        :func:`he_infer.client.release.release`.
        """
        return release(prediction.logits, bits=bits)

    def upload_keys(self) -> bool:
        """Make sure that the server has the evaluation keys; True if they had to be sent."""
        if self._uploaded:
            return False
        keys = self._made_keys()
        sent = not self._sender.known(keys.digest)
        if sent:
            self._sender.send(keys.to_bytes(), keys.digest)
        self._uploaded = True
        return sent

    def delete_keys(self) -> bool:
        """Ask the server to forget the evaluation keys; False if it did not have them."""
        self._uploaded = False
        return self._sender.forget(self._made_keys().digest)

    def use_evaluation_keys(self, keys: EvaluationKeys) -> None:
        """Use keys that were made before; raises MismatchError unless they are for this model."""
        wanted = self._spec.key_levels
        if keys.params != self._spec.params or keys.levels != wanted:
            raise MismatchError(
                "these evaluation keys are for other parameters, rotation steps or levels: "
                "make them anew"
            )
        self._evaluation_keys = keys

    def _made_keys(self) -> EvaluationKeys:
        if self._evaluation_keys is None:
            self._evaluation_keys = self._keys.evaluation_keys(
                self._spec.key_levels, progress=self._progress
            )
        return self._evaluation_keys

    def _query(self, records: FloatArray) -> Prediction:
        """One query of at most ``spec.batch`` records (batch, features), checked before."""
        keys_digest = self._made_keys().digest
        start = time.perf_counter()
        slots = self._spec.place(records)
        ciphertexts = self._keys.encrypt(slots, self._spec.input_scale)
        expected = expected_query(self._spec, keys_digest)
        encrypted = time.perf_counter()
        answer = self._exchange(ciphertexts, expected)
        received = time.perf_counter()
        frames, evaluate_ms = self._parse(answer, keys_digest)
        decrypted = np.stack([self._keys.decrypt(frame).real for frame in frames])
        logits = self._spec.unpack(decrypted, len(records))
        done = time.perf_counter()
        return Prediction(
            logits=logits,
            labels=np.argmax(logits, axis=1),
            slots=decrypted,
            level=self._spec.output_level,
            scale=self._spec.output_scale,
            timings=Timings(
                encrypt_ms=1e3 * (encrypted - start),
                exchange_ms=1e3 * (received - encrypted),
                evaluate_ms=evaluate_ms,
                decrypt_ms=1e3 * (done - received),
            ),
            queries=1,
            bytes_sent=expected.total_bytes,
            bytes_received=len(answer.body),
        )

    def _exchange(self, ciphertexts: list[SeededCiphertext], expected: Expected) -> Response:
        """Send a query; if the server has dropped the keys since, upload them once more."""
        answer = self._post(ciphertexts, expected)
        if answer.status == 404 and refusal_in(answer).code == "unknown_keys":
            self._uploaded = False
            self.upload_keys()
            answer = self._post(ciphertexts, expected)
        expect_status(answer, 200)
        return answer

    def _post(self, ciphertexts: list[SeededCiphertext], expected: Expected) -> Response:
        """Send a query, packing one frame at a time: the envelope is never held whole."""
        head = protocol.query_head(expected.total_bytes)
        # Asked again after a broken connection, the query is evaluated and charged only once.
        idempotency_key = secrets.token_hex(16)

        def parts() -> Iterator[bytes]:
            yield head
            yield expected.header.to_bytes()
            for index, ciphertext in enumerate(ciphertexts):
                yield write_frame(ciphertext, expected, index)

        total = len(head) + expected.total_bytes
        reply_bytes = expected_reply(self._spec, "0" * 64).total_bytes
        return ask(
            self._transport,
            Request(
                method="POST",
                path=protocol.infer_path(self._spec.model, self._version),
                headers={
                    "content-type": "application/octet-stream",
                    protocol.HEAD_LENGTH_HEADER: str(len(head)),
                    protocol.IDEMPOTENCY_HEADER: idempotency_key,
                },
                open_body=lambda: self._chunks(parts(), total, "upload query"),
                body_bytes=total,
                max_reply_bytes=protocol.MAX_HEAD_BYTES + reply_bytes,
            ),
            self._retries,
        )

    def _parse(self, answer: Response, keys_digest: str) -> tuple[list[Ciphertext], float]:
        expected = expected_reply(self._spec, keys_digest)
        head_bytes = protocol.head_length(answer.headers.get(protocol.HEAD_LENGTH_HEADER))
        body = memoryview(answer.body)
        if len(body) != head_bytes + expected.total_bytes:
            raise WireError(
                f"expected a reply of {head_bytes + expected.total_bytes} bytes, got {len(body)}"
            )
        head = bytes(body[:head_bytes])
        evaluate_ms = protocol.parse_reply_head(head, length=expected.total_bytes)
        frames = read_envelope(body[head_bytes:], expected, limit_bytes=expected.total_bytes)
        return [frame for frame in frames if isinstance(frame, Ciphertext)], evaluate_ms

    def _chunks(self, parts: Iterable[bytes], total: int, stage: str) -> Iterator[bytes]:
        done = 0
        for part in parts:
            for first in range(0, len(part), _CHUNK_BYTES):
                chunk = part[first : first + _CHUNK_BYTES]
                yield chunk
                done += len(chunk)
                if self._progress is not None:
                    self._progress(stage, done, total)


def _joined(answers: Sequence[Prediction]) -> Prediction:
    """Answers to queries in a row as one."""
    return replace(
        answers[0],
        logits=np.concatenate([answer.logits for answer in answers]),
        labels=np.concatenate([answer.labels for answer in answers]),
        slots=np.concatenate([answer.slots for answer in answers]),
        timings=Timings(
            **{
                name: sum(getattr(answer.timings, name) for answer in answers)
                for name in Timings.__slots__
            }
        ),
        queries=len(answers),
        bytes_sent=sum(answer.bytes_sent for answer in answers),
        bytes_received=sum(answer.bytes_received for answer in answers),
    )
