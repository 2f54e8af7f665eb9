"""Why an exchange failed, in words that help, and a deadline for an exchange as a whole."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import Any, Final, Self

import httpx

from he_infer.errors import ServiceError, UnreachableError

# OpenSSL's reasons, as Python names them; the first that is part of an error's reason counts.
_TLS_WORDS: Final = (
    (
        "CERTIFICATE_REQUIRED",
        "wants a client's certificate: give one with its private key",
    ),
    (
        "HANDSHAKE_FAILURE",
        "does not agree on how to encrypt, or wants a client's certificate",
    ),
    (
        "UNKNOWN_CA",
        "does not know the authority of our certificate: give one that its operator issued",
    ),
    ("CERTIFICATE", "refuses our certificate: give one that is valid and its operator issued"),
    ("WRONG_VERSION_NUMBER", "speaks no TLS: write http:// if it serves plain HTTP"),
    ("RECORD_LAYER_FAILURE", "speaks no TLS: write http:// if it serves plain HTTP"),
    ("HTTP_REQUEST", "speaks no TLS: write http:// if it serves plain HTTP"),
)


class TlsError(UnreachableError):
    """The two ends do not trust or understand each other: asking again does not help."""


def failure_of(error: httpx.TransportError, url: str) -> ServiceError:
    """What a transport's error means to whoever asked ``url``."""
    tls = _tls_error(error)
    if isinstance(tls, ssl.SSLCertVerificationError):
        return TlsError(
            f"the certificate of {url} is not trusted ({tls.verify_message.rstrip('.')}): name its "
            "authority's PEM file, and the server as its certificate does"
        )
    if tls is not None:
        reason = str(tls.reason or "")
        for part, words in _TLS_WORDS:
            if part in reason:
                return TlsError(f"{url} {words}")
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return UnreachableError(f"no server answers at {url}: check the address and that it runs")
    if isinstance(error, httpx.TimeoutException):
        return ServiceError(f"{url} stopped answering: raise the timeout, or retry")
    hint = ", or write https:// if the server has a certificate" if url.startswith("http:") else ""
    return UnreachableError(f"the connection to {url} broke: retry{hint}")


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    for _ in range(10):  # causes of causes, and no circle
        if error is None or isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None


class Watch:
    """Shuts a connection down when an exchange ``over`` it takes longer than ``limit_s`` in all.

    The timeout of a socket begins anew with every byte, and a hostile server may send one byte a
    second.
    """

    def __init__(self, limit_s: float) -> None:
        self.expired = False
        self._stream: Any = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(limit_s, self._end)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def over(self, stream: Any) -> None:
        """Say which connection the exchange runs over. Connecting has a timeout of its own."""
        with self._lock:
            self._stream = stream
            if self.expired:
                self._shut()

    def _end(self) -> None:
        with self._lock:
            self.expired = True
            if self._stream is not None:
                self._shut()

    def _shut(self) -> None:
        with contextlib.suppress(OSError):
            # A plain shutdown reaches a thread that waits in recv; closing would not.
            connection = self._stream.get_extra_info("socket")
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
