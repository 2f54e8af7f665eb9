"""Starts the service on a socket and stops it without dropping what is in flight."""

from __future__ import annotations

import ipaddress
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from he_infer.errors import ServiceError
from he_infer.server.http_server import Server, listen
from he_infer.server.logs import log_event, log_to_stderr
from he_infer.server.service import InferenceService
from he_infer.server.settings import Settings
from he_infer.server.state import State
from he_infer.server.tls import Tls
from he_infer.server.workers.processes import ProcessPool
from he_infer.server.workers.workers import Pool, Workers

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


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
            tls.check()  # now, not after minutes of loading plans
        listener = opened.enter_context(listen(host, port, reuse_port=reuse_port))
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
    """Restore the handlers of signals afterwards.

    Until the server has its own, a SIGTERM raises SystemExit, which runs every clean-up. It is
    blocked until the caller unblocks it.
    """

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
