"""A server in a thread of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Self

from he_infer.errors import ServiceError
from he_infer.plan.plan import Plan
from he_infer.server.http_server import Server, listen
from he_infer.server.service import InferenceService
from he_infer.server.settings import Settings
from he_infer.server.state import State
from he_infer.server.workers.hosting import Host
from he_infer.server.workers.plan_host import hosts_of
from he_infer.server.workers.workers import ThreadPool, Workers


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
        self._listener = listen("127.0.0.1", 0)
        self.state = state or State.open()
        workers = Workers(ThreadPool(hosts, self.state.blobs, chosen), chosen)
        self.service = InferenceService(workers, self.state, chosen)
        self._server = Server(self.service, self._listener)
        self.url = self._server.url
        self._thread = threading.Thread(
            target=self._server.run,
            kwargs={"sockets": [self._listener]},
            name="he-infer-server",
            daemon=True,
        )

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

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self._thread.join(timeout=60.0)
        self._listener.close()
        self.service.close()
        self.state.close()
