"""Starts the service on a socket and stops it without dropping what is in flight."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import uvicorn

from he_infer.errors import ServiceError
from he_infer.plan import Plan
from he_infer.progress import Progress
from he_infer.server.app import Application
from he_infer.server.guard import guarded_protocol
from he_infer.server.hosting import Host
from he_infer.server.logs import log_event, log_to_stderr
from he_infer.server.plan_host import PlanHost
from he_infer.server.service import InferenceService
from he_infer.server.settings import Settings


def run(
    plans: Sequence[Plan],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    settings: Settings | None = None,
    certificate: Path | None = None,
    private_key: Path | None = None,
    on_started: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> None:
    """Serve ``plans`` until SIGTERM or SIGINT, then finish what is in flight and return.

    ``port`` 0 takes a free one; ``on_started`` gets the address. ``certificate`` and
    ``private_key`` (PEM files) switch to HTTPS. Logs JSON lines to standard error. Call it
    from the main thread. Raises ServiceError if the address cannot be bound.
    """
    chosen = Settings() if settings is None else settings
    listener = _listen(host, port)
    with listener:
        hosts = _hosts(plans, chosen, progress=progress)
        log_to_stderr()
        server = Server(
            InferenceService(hosts, settings=chosen),
            listener,
            certificate=certificate,
            private_key=private_key,
        )
        models = [h.name for h in hosts]
        log_event(logging.INFO, "started", {"address": server.url, "models": models})
        if on_started is not None:
            on_started(server.url)
        server.run(sockets=[listener])
        log_event(logging.INFO, "stopped", {})


def _hosts(
    plans: Sequence[Plan], settings: Settings, *, progress: Progress | None = None
) -> list[PlanHost]:
    return [
        PlanHost(
            plan,
            backend=settings.backend,
            threads=settings.threads_per_evaluation,
            progress=progress,
        )
        for plan in plans
    ]


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
        certificate: Path | None = None,
        private_key: Path | None = None,
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
                ssl_certfile=None if certificate is None else str(certificate),
                ssl_keyfile=None if private_key is None else str(private_key),
            )
        )
        self._service = service
        self._stopping_since: float | None = None
        scheme = "http" if certificate is None else "https"
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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        self.application.close()


class BackgroundServer:
    """A server in a thread of this process, for demos and tests: ``with BackgroundServer(…)``.

    Listens on 127.0.0.1 at a free port; ``url`` is its address.
    """

    def __init__(self, hosts: Sequence[Host], *, settings: Settings | None = None) -> None:
        chosen = Settings(drain_notice_s=0.0) if settings is None else settings
        self._listener = _listen("127.0.0.1", 0)
        self.service = InferenceService(hosts, settings=chosen)
        self._server = Server(self.service, self._listener)
        self.url = self._server.url
        self._thread = threading.Thread(target=self._run, name="he-infer-server", daemon=True)

    @classmethod
    def of_plans(cls, plans: Sequence[Plan], *, settings: Settings | None = None) -> Self:
        """Encode the plans' weights and serve them."""
        return cls(_hosts(plans, settings or Settings()), settings=settings)

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

    def _run(self) -> None:
        self._server.run(sockets=[self._listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise ServiceError(
            f"cannot listen on {host}:{port}: {error.strerror or 'unknown address'}: choose "
            "another port"
        ) from error
