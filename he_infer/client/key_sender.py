"""Evaluation keys are sent in pieces, and sending goes on where a connection broke."""

from __future__ import annotations

import re
from typing import Final

from he_infer.client.messages import MAX_ERROR_BYTES, expect_status
from he_infer.client.retries import RetryPolicy, ask
from he_infer.client.transport import Request, Response, Transport
from he_infer.errors import ServiceError, UnreachableError, WireError
from he_infer.progress import Progress
from he_infer.wire import protocol as protocol

PIECE_BYTES: Final = 4 * 2**20
_RANGE: Final = re.compile(r"bytes=0-(\d{1,15})")


class KeySender:
    """Uploads keys for one model of one server.

    ``version``: of the model that the keys are for; None means the default one.
    """

    def __init__(
        self,
        transport: Transport,
        model: str,
        *,
        version: str | None = None,
        retries: RetryPolicy,
        progress: Progress | None = None,
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        self._transport = transport
        self._model = model
        self._version = version
        self._retries = retries
        self._progress = progress
        self._piece_bytes = piece_bytes

    def known(self, digest: str) -> bool:
        """Whether the server has keys with this SHA-256 for us; raises RefusedError."""
        found = self._ask(Request(method="HEAD", path=self._keys(digest), max_reply_bytes=0))
        if found.status != 404:
            expect_status(found, 200)
        return found.status == 200

    def forget(self, digest: str) -> bool:
        """Ask the server to delete keys; False if it has none."""
        answer = self._ask(_request("DELETE", self._keys(digest)))
        if answer.status == 404:
            return False
        expect_status(answer, 204)
        return True

    def send(self, data: bytes, digest: str) -> None:
        """Send an envelope of evaluation keys; raises RefusedError, UnreachableError."""
        begun = self._ask(_request("POST", self._uploads()))
        expect_status(begun, 202)
        path = self._upload_path(begun)
        received, broken = 0, 0
        # One round for each piece, and one for each time that something went wrong: a server
        # that does not get on must not hold us for ever.
        rounds = -(-len(data) // self._piece_bytes) + self._retries.attempts
        while received < len(data):
            if rounds == 0:
                raise ServiceError("the server does not get on with the upload of keys: retry")
            rounds -= 1
            try:
                received = self._piece(path, data, received)
            except UnreachableError:
                broken += 1
                if broken >= self._retries.attempts:
                    raise
                received = self._received(path)
            if self._progress is not None:
                self._progress("upload keys", received, len(data))
        done = self._ask(_request("PUT", f"{path}?digest={digest}"))
        if done.status == 404 and self.known(digest):
            return  # the answer to an attempt before this one was lost
        expect_status(done, 201)

    def _piece(self, path: str, data: bytes, start: int) -> int:
        piece = data[start : start + self._piece_bytes]
        answer = self._ask(
            Request(
                method="PATCH",
                path=path,
                headers={
                    "content-range": f"bytes {start}-{start + len(piece) - 1}/{len(data)}",
                    "content-type": "application/octet-stream",
                },
                open_body=lambda: iter((piece,)),
                body_bytes=len(piece),
                max_reply_bytes=MAX_ERROR_BYTES,
            )
        )
        if answer.status == 416:  # an attempt before this one arrived after all
            return _end_of(answer, len(data))
        expect_status(answer, 202)
        return start + len(piece)

    def _received(self, path: str) -> int:
        answer = self._ask(_request("GET", path))
        expect_status(answer, 204)
        return _end_of(answer, protocol.MAX_UPLOAD_BYTES)

    def _ask(self, request: Request) -> Response:
        return ask(self._transport, request, self._retries)

    def _keys(self, digest: str) -> str:
        return protocol.keys_path(self._model, digest, self._version)

    def _uploads(self) -> str:
        return protocol.uploads_path(self._model, self._version)

    def _upload_path(self, begun: Response) -> str:
        """The new upload's path, put together here: a server must not send us elsewhere."""
        described = protocol.parse_json(begun.body)
        identity = described.get("upload") if isinstance(described, dict) else None
        if not isinstance(identity, str) or not protocol.UPLOAD.fullmatch(identity):
            raise WireError("the server named no upload")
        return f"{self._uploads()}/{identity}"


def _request(method: str, path: str) -> Request:
    return Request(method=method, path=path, max_reply_bytes=MAX_ERROR_BYTES)


def _end_of(answer: Response, most: int) -> int:
    text = answer.headers.get("range")
    if text is None:
        return 0
    match = _RANGE.fullmatch(text)
    if match is None or int(match[1]) >= most:
        raise ServiceError("the server does not say what it has received")
    return int(match[1]) + 1
