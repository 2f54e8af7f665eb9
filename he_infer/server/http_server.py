"""uvicorn with what this service needs of it: deadlines for senders, and a stop in two steps."""

from __future__ import annotations

import asyncio
import socket
import time
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from he_infer.errors import ServiceError
from he_infer.server.access import CERTIFICATE_NAME
from he_infer.server.routes.app import Application
from he_infer.server.service import InferenceService
from he_infer.server.tls import Tls


class Server(uvicorn.Server):
    """uvicorn on one listening socket; a signal makes it unready, then drains, then stops it.

    After the first signal readiness says 503 for at least ``drain_notice_s``, with the socket
    still open, so that a load balancer sees it. A second signal stops at once.
    """

    def __init__(
        self,
        service: InferenceService,
        listener: socket.socket,
        *,
        tls: Tls | None = None,
    ) -> None:
        settings = service.settings
        self.application = Application(service)
        super().__init__(
            uvicorn.Config(
                self.application,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=int(settings.keep_alive_s),
                timeout_graceful_shutdown=int(settings.drain_timeout_s) + 1,
                limit_concurrency=settings.connections,
                **({} if tls is None else tls.options),
            )
        )
        self._service = service
        self._stopping_since: float | None = None
        self._sweeper: asyncio.Task[None] | None = None
        scheme = "http" if tls is None else "https"
        name, port = listener.getsockname()[:2]
        self.url = f"{scheme}://[{name}]:{port}" if ":" in name else f"{scheme}://{name}:{port}"

    def stop(self) -> None:
        """Drain and stop; from any thread. Again: stop without waiting."""
        if self._stopping_since is not None:
            self.should_exit = self.force_exit = True
            return
        self._service.drain()
        self._stopping_since = time.monotonic()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not calling uvicorn's own: it would raise the signal again after a clean stop.
        self.stop()

    async def on_tick(self, counter: int) -> bool:
        if self._stopping_since is not None:
            waited = time.monotonic() - self._stopping_since
            settings = self._service.settings
            if waited >= settings.drain_timeout_s or (
                waited >= settings.drain_notice_s and self.application.idle
            ):
                self.should_exit = True
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's for given sockets, with a deadline for TLS handshakes, which it lacks."""
        await self.lifespan.startup()
        loop = asyncio.get_running_loop()
        timeout_s = None if self.config.ssl is None else self._service.settings.header_timeout_s
        self.servers = [
            await loop.create_server(
                self._protocol,
                sock=listener,
                ssl=self.config.ssl,
                backlog=self.config.backlog,
                ssl_handshake_timeout=timeout_s,
            )
            for listener in sockets or ()
        ]
        self.started = True
        self._sweeper = asyncio.create_task(self._service.sweep_for_ever())

    def _protocol(self) -> GuardedProtocol:
        return GuardedProtocol(
            self.config,
            self.server_state,
            header_timeout_s=self._service.settings.header_timeout_s,
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        await super().shutdown(sockets)
        await self._service.workers.stop()


class GuardedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with what it lacks: a deadline for request headers."""

    def __init__(
        self, config: uvicorn.Config, state: ServerState, *, header_timeout_s: float
    ) -> None:
        super().__init__(config=config, server_state=state, app_state={})
        self._header_timeout_s = header_timeout_s
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        name = _certificate_name(transport)
        if name is not None:
            # Copied into the scope of every request of this connection.
            self.app_state[CERTIFICATE_NAME] = name
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
            self._header_timer = self.loop.call_later(self._header_timeout_s, self._too_slow)

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


def listen(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A listening socket; raises ServiceError if the address cannot be bound."""
    if not 0 <= port <= 65535:
        raise ServiceError(f"port {port} is none: expected 0 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server(
            (host, port), family=family, backlog=1024, reuse_port=reuse_port
        )
    except OSError as error:
        raise ServiceError(
            f"cannot listen on {host}:{port}: {error.strerror or 'unknown address'}: choose "
            "another port"
        ) from error


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
