"""The seam between client and network: one method, so that tests need no socket.

A transport sends one request and returns one bounded response. It raises UnreachableError when
no server answered, ServiceError when one stopped answering, TooLargeError when one said more
than the request allows.
"""

from __future__ import annotations

import ipaddress
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import httpx

from he_infer.client.failures import TlsError, Watch, failure_of
from he_infer.errors import ParameterError, ServiceError, TooLargeError, UnreachableError

_MIN_BYTES_PER_S: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request; ``open_body`` gives the body anew for each attempt, in chunks.

    ``body_bytes``: the body's exact length. ``max_reply_bytes``: longest response body read.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    open_body: Callable[[], Iterator[bytes]] | None = None
    body_bytes: int = 0
    max_reply_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A response read whole; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """Sends requests to one server."""

    def request(self, request: Request) -> Response: ...


class HttpTransport:
    """HTTP through httpx, one connection kept open; close it, or use it in a ``with``.

    ``url``: http(s)://host[:port]. ``timeout_s``: longest silence of the server, evaluation
    included. ``exchange_s``: longest that a request and its answer take altogether, and a second
    more for each 64 KiB of the request and of the longest answer. ``attempts``: tries in all
    when the connection fails; nothing else is retried.
    ``authority``: PEM file of the certificate authority to trust instead of the system's.
    ``token``: shown with every request, and only to this server. ``certificate``: PEM files of
    the client's certificate and private key.
    Proxies from the environment are used, except for loopback addresses.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 600.0,
        exchange_s: float = 900.0,
        connect_timeout_s: float = 5.0,
        attempts: int = 3,
        pause_s: float = 0.2,
        authority: Path | None = None,
        token: str | None = None,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ParameterError(f"{url!r} is not an address: expected http://host:port") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ParameterError(f"{url!r} is not an address: expected http://host:port")
        if attempts < 1:
            raise ParameterError(f"attempts = {attempts}: expected at least 1")
        self.url = url.rstrip("/")
        self._attempts = attempts
        self._pause_s = pause_s
        self._exchange_s = exchange_s
        self._stream: Any = None  # what httpx keeps open
        self._client = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(timeout_s, connect=connect_timeout_s),
            follow_redirects=False,
            trust_env=not _is_loopback(parsed.host),
            verify=_context(authority, certificate),
            # Identity: what is counted against the limit is what came, and nothing inflates.
            headers={
                "accept-encoding": "identity",
                **({} if token is None else {"authorization": f"Bearer {_harmless(token)}"}),
            },
        )

    def __enter__(self) -> HttpTransport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def request(self, request: Request) -> Response:
        for attempt in range(1, self._attempts + 1):
            try:
                return self._once(request)
            except UnreachableError as error:
                if attempt == self._attempts or isinstance(error, TlsError):
                    raise
                time.sleep(self._pause_s * 2 ** (attempt - 1))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _too_long(self) -> ServiceError:
        return ServiceError(
            f"{self.url} did not finish its answer in time: raise exchange_s, or retry"
        )

    def _noticed(self, watch: Watch) -> Callable[[str, dict[str, Any]], None]:
        """A trace for httpx that tells ``watch`` which connection it watches."""
        if self._stream is not None:
            watch.over(self._stream)

        def trace(event: str, info: dict[str, Any]) -> None:
            if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
                self._stream = info["return_value"]
                watch.over(self._stream)

        return trace

    def _once(self, request: Request) -> Response:
        headers = dict(request.headers)
        content = None
        size = request.body_bytes + request.max_reply_bytes
        watch = Watch(self._exchange_s + size / _MIN_BYTES_PER_S)
        if request.open_body is not None:
            headers["content-length"] = str(request.body_bytes)
            content = request.open_body()
        try:
            with (
                watch,
                self._client.stream(
                    request.method,
                    request.path,
                    headers=headers,
                    content=content,
                    extensions={"trace": self._noticed(watch)},
                ) as answer,
            ):
                watch.over(answer.extensions["network_stream"])
                body = bytearray()
                for chunk in answer.iter_raw():
                    body += chunk
                    if len(body) > request.max_reply_bytes:
                        raise TooLargeError(
                            f"the server's reply exceeds {request.max_reply_bytes} bytes"
                        )
                if watch.expired:  # what had no length ended early, which looks like an end
                    raise self._too_long()
                lower = {name.lower(): value for name, value in answer.headers.items()}
                return Response(status=answer.status_code, headers=lower, body=bytes(body))
        except httpx.TransportError as error:
            if watch.expired:
                raise self._too_long() from error
            raise failure_of(error, self.url) from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _context(authority: Path | None, certificate: tuple[Path, Path] | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if authority is None else str(authority))
        if certificate is not None:
            context.load_cert_chain(*certificate)
    except (OSError, ssl.SSLError) as error:
        raise ParameterError(
            "a certificate or its key cannot be read: give PEM files, the key unencrypted"
        ) from error
    return context


def _harmless(token: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ParameterError("a token is one word of printable ASCII characters")
    return token
