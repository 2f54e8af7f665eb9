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
from typing import Protocol

import httpx

from he_infer.errors import ParameterError, ServiceError, TooLargeError, UnreachableError


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
    included. ``attempts``: tries in all when the connection fails; nothing else is retried.
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
            except UnreachableError:
                if attempt == self._attempts:
                    raise
                time.sleep(self._pause_s * 2 ** (attempt - 1))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _once(self, request: Request) -> Response:
        headers = dict(request.headers)
        content = None
        if request.open_body is not None:
            headers["content-length"] = str(request.body_bytes)
            content = request.open_body()
        try:
            with self._client.stream(
                request.method, request.path, headers=headers, content=content
            ) as answer:
                body = bytearray()
                for chunk in answer.iter_raw():
                    body += chunk
                    if len(body) > request.max_reply_bytes:
                        raise TooLargeError(
                            f"the server's reply exceeds {request.max_reply_bytes} bytes"
                        )
                lower = {name.lower(): value for name, value in answer.headers.items()}
                return Response(status=answer.status_code, headers=lower, body=bytes(body))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise UnreachableError(
                f"no server answers at {self.url}: check the address and that it runs"
            ) from error
        except httpx.TimeoutException as error:
            raise ServiceError(f"{self.url} stopped answering: raise the timeout, or retry") from (
                error
            )
        except httpx.TransportError as error:
            raise UnreachableError(f"the connection to {self.url} broke: retry") from error


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
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ParameterError("a token is one word of printable ASCII characters")
    return token
