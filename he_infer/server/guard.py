"""uvicorn's HTTP/1.1 protocol with what it lacks: a deadline for request headers."""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from he_infer.server.access import CERTIFICATE_NAME


def guarded_protocol(header_timeout_s: float) -> type[H11Protocol]:
    """A protocol class that closes connections whose headers take longer than the timeout.

    uvicorn builds protocols by class, so the timeout travels in one.
    """

    class GuardedProtocol(H11Protocol):
        HEADER_TIMEOUT_S: Final = header_timeout_s
        _header_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            name = _certificate_name(transport)
            if name is not None:
                # Copied into the scope of every request of this connection.
                self.app_state = {**self.app_state, CERTIFICATE_NAME: name}
            self._watch_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def _watch_headers(self) -> None:
            between = self.cycle is None or self.cycle.response_complete
            if not between:
                self._stop_timer()
            elif self._header_timer is None:
                self._header_timer = self.loop.call_later(self.HEADER_TIMEOUT_S, self._too_slow)

        def _stop_timer(self) -> None:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None

        def _too_slow(self) -> None:
            self._header_timer = None
            if (self.cycle is None or self.cycle.response_complete) and not (
                self.transport.is_closing()
            ):
                self.transport.close()

    return GuardedProtocol


def _certificate_name(transport: asyncio.Transport) -> str | None:
    """The common name in the client certificate, which the TLS layer has checked; None if none."""
    certificate = transport.get_extra_info("peercert")
    if not certificate:
        return None
    for attributes in certificate.get("subject", ()):
        for key, value in attributes:
            if key == "commonName":
                return str(value)
    return ""
