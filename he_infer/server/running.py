"""Starts the service on a socket and stops it without dropping what is in flight."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self

import uvicorn

from he_infer.errors import ParameterError, ServiceError
from he_infer.plan.plan import Plan
from he_infer.server.guard import guarded_protocol
from he_infer.server.logs import log_event, log_to_stderr
from he_infer.server.routes.app import Application
from he_infer.server.service import InferenceService
from he_infer.server.settings import Settings
from he_infer.server.state import State
from he_infer.server.workers.hosting import Host
from he_infer.server.workers.plan_host import hosts_of
from he_infer.server.workers.processes import ProcessPool
from he_infer.server.workers.workers import Pool, ThreadPool, Workers

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM files: the server's ``certificate`` chain and ``private_key``; with ``authority``,
    clients must show a certificate that it signed, whose common name is their tenant's."""

    certificate: Path
    private_key: Path
    authority: Path | None = None


def run(
    plans: Sequence[Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    settings: Settings | None = None,
    open_state: Callable[[], State] = State.open,
    tls: Tls | None = None,
    reuse_port: bool = False,
    make_pool: Callable[[Sequence[Path], str, Settings], Pool] = ProcessPool,
    on_started: Callable[[str], None] | None = None,
) -> None:
    """Serve plan files until SIGTERM or SIGINT, then finish what is in flight and return.

    ``port`` 0 takes a free one; ``on_started`` gets the address. ``open_state``: what it returns,
    by default a temporary state, is closed at the end. ``reuse_port`` lets the next server share
    the port before this one stops. Logs JSON lines to standard error. Call it from the main
    thread. Raises ServiceError if the address cannot be bound or a plan cannot be served,
    SystemExit if SIGTERM comes before there is anything to finish.
    """
    chosen = Settings() if settings is None else settings
    # The state is closed whatever is wrong with the rest.
    with _signals_as_before(), open_state() as kept, ExitStack() as opened:
        # Until now a SIGTERM had to wait: nobody would have deleted a state half opened.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        exposed = _check_access(host, chosen)
        if tls is not None:
            check_tls(tls)  # now, not after minutes of loading plans
        listener = opened.enter_context(_listen(host, port, reuse_port=reuse_port))
        log_to_stderr()
        workers = Workers(make_pool(plans, kept.blobs.url, chosen), chosen)
        try:
            server = Server(InferenceService(workers, kept, chosen), listener, tls=tls)
            for number in _SIGNALS:  # uvicorn's own come later than the address is told
                signal.signal(number, server.handle_exit)
            models = [f"{f.name}/{f.version}" for f in workers.facts]
            if exposed and tls is None:
                advice = "whoever sees the traffic sees tokens: serve HTTPS, or put a proxy before"
                log_event(logging.WARNING, "tokens_in_the_clear", {"advice": advice})
            log_event(logging.INFO, "started", {"address": server.url, "models": models})
            if on_started is not None:
                on_started(server.url)
            server.run(sockets=[listener])
        finally:
            workers.close()
        log_event(logging.INFO, "stopped", {})


@contextmanager
def _signals_as_before() -> Iterator[None]:
    """SIGTERM, once unblocked, leaves through every clean-up; afterwards all is as it was."""

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one would interrupt the cleaning up
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    signal.signal(signal.SIGTERM, leave)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _check_access(host: str, settings: Settings) -> bool:
    """Whether others than this machine reach ``host``; raises ServiceError if it is open to all."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not settings.tokens_required:
        raise ServiceError(
            f"serving at {host} to whoever comes: require tokens (--require-tokens), or listen on "
            "127.0.0.1"
        )
    return not loopback


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
                http=guarded_protocol(settings.header_timeout_s),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=int(settings.keep_alive_s),
                timeout_graceful_shutdown=int(settings.drain_timeout_s) + 1,
                limit_concurrency=settings.connections,
                **_tls_options(tls),
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
        limits: dict[str, Any] = {}
        if self.config.ssl is not None:
            limits["ssl_handshake_timeout"] = self._service.settings.header_timeout_s
        self.servers = [
            await loop.create_server(
                self._protocol,
                sock=listener,
                ssl=self.config.ssl,
                backlog=self.config.backlog,
                **limits,
            )
            for listener in sockets or ()
        ]
        self.started = True
        self._sweeper = asyncio.create_task(self._service.sweep_for_ever())

    def _protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        await super().shutdown(sockets)
        await self._service.workers.stop()


class BackgroundServer:
    """A server in a thread of this process, for demos and tests: ``with BackgroundServer(…)``.

    Listens on 127.0.0.1 at a free port; ``url`` is its address.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        *,
        settings: Settings | None = None,
        state: State | None = None,
    ) -> None:
        chosen = Settings(drain_notice_s=0.0) if settings is None else settings
        self._listener = _listen("127.0.0.1", 0)
        self.state = state or State.open()
        workers = Workers(ThreadPool(hosts, self.state.blobs, chosen), chosen)
        self.service = InferenceService(workers, self.state, chosen)
        self._server = Server(self.service, self._listener)
        self.url = self._server.url
        self._thread = threading.Thread(target=self._run, name="he-infer-server", daemon=True)

    @classmethod
    def of_plans(
        cls,
        plans: Sequence[Plan],
        *,
        settings: Settings | None = None,
        state: State | None = None,
    ) -> Self:
        """Encode the plans' weights and serve them."""
        return cls(hosts_of(plans, settings or Settings()), settings=settings, state=state)

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + 30.0
        while not self._server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        if not self._server.started:
            raise ServiceError("the server in the background did not start within 30 s")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.stop()
        self._thread.join(timeout=60.0)
        self._listener.close()
        self.service.close()
        self.state.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._listener])


def _tls_options(tls: Tls | None) -> dict[str, Any]:
    if tls is None:
        return {}
    options: dict[str, Any] = {
        "ssl_certfile": str(tls.certificate),
        "ssl_keyfile": str(tls.private_key),
    }
    if tls.authority is not None:
        options |= {"ssl_ca_certs": str(tls.authority), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return options


def check_tls(tls: Tls) -> None:
    """Raise ParameterError naming the file that a TLS server cannot use."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files = [tls.certificate, tls.private_key]
    files += [] if tls.authority is None else [tls.authority]
    for path in files:
        try:
            path.read_bytes()
        except OSError as error:
            raise ParameterError(f"cannot read {path}: {error.strerror}") from error
    try:
        # An encrypted key would make OpenSSL ask on the terminal.
        context.load_cert_chain(tls.certificate, tls.private_key, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise ParameterError(
            f"{tls.certificate} and {tls.private_key} are no certificate with its key "
            f"({_reason(error)}): give PEM files, the key unencrypted"
        ) from error
    if tls.authority is not None:
        try:
            context.load_verify_locations(cafile=tls.authority)
        except (OSError, ValueError) as error:
            raise ParameterError(
                f"{tls.authority} holds no certificate of an authority ({_reason(error)}): give a "
                "PEM file"
            ) from error


def _reason(error: Exception) -> str:
    found = getattr(error, "reason", None) or "not PEM"
    return str(found).lower().replace("_", " ")


def _listen(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
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
