"""Runs a server whose evaluations wait for a line of standard input; a process for signal tests."""

from __future__ import annotations

import socket
import sys
from typing import Any

from he_infer.server import InferenceService, Settings
from he_infer.server.http_server import Server
from he_infer.server.state import State
from he_infer.server.workers.hosting import Query
from he_infer.server.workers.workers import ThreadPool, Workers
from tests.server.fakes import FakeHost


class HeldHost(FakeHost):
    def evaluate(self, query: Query, loaded_keys: Any) -> bytes:
        print("evaluating", flush=True)
        sys.stdin.readline()
        return super().evaluate(query, loaded_keys)


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = Settings(drain_notice_s=0.2)
        with State.open() as state:
            workers = Workers(ThreadPool([HeldHost()], state.blobs, settings), settings)
            server = Server(InferenceService(workers, state, settings), listener)
            print(server.url, flush=True)
            server.run(sockets=[listener])
            workers.close()
    sys.exit(0)
