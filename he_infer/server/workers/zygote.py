"""The process that workers are forked from, after plans were loaded and weights encoded.

It never sees a byte from outside. Forked workers share the encoded weights' memory, and one
that was killed is replaced in milliseconds. It is started as
``python -m he_infer.server.workers.zygote FD`` on a socket whose other end the HTTP process holds,
and ends when that end closes.

    → {"plans": [path …], "settings": {…}, "blobs": url}     ← {"facts": […]} or {"error": …}
    → one byte with a socket                                  ← {"pid": …}
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import socket
import sys
from dataclasses import asdict
from typing import Final

from he_infer.errors import HEInferError
from he_infer.plan.file import load_plan
from he_infer.server.settings import Settings
from he_infer.server.state.blobs import Blobs
from he_infer.server.workers import pipes
from he_infer.server.workers.dialogue import perform, task_of
from he_infer.server.workers.evaluator import Evaluator
from he_infer.server.workers.plan_host import PlanHost, hosts_of

_PR_SET_NO_NEW_PRIVS: Final = 38
_MAX_BODY_BYTES: Final = 2**31


def main(descriptor: int) -> None:
    control = socket.socket(fileno=descriptor)
    # The terminal's interrupt is for the HTTP process, which drains and then closes our socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel collects dead workers
    first = pipes.receive(control, most_bytes=0)
    if first is None:
        return
    asked, _ = first
    settings = Settings(**asked["settings"])
    try:
        hosts = hosts_of((load_plan(path) for path in asked["plans"]), settings)
    except HEInferError as error:
        pipes.send(control, ({"error": str(error)}, b""))
        return
    pipes.send(control, ({"facts": [asdict(host.facts) for host in hosts]}, b""))
    blobs_url = str(asked["blobs"])
    gc.collect()
    gc.freeze()  # collections in workers would write to pages that all of them share
    while True:
        message, passed, _, _ = socket.recv_fds(control, 1, 1)
        if not message or not passed:
            return
        pid = os.fork()
        if pid == 0:
            control.close()
            work = socket.socket(fileno=passed[0])
            _run_worker(work, hosts, blobs_url, settings)
        os.close(passed[0])
        pipes.send(control, ({"pid": pid}, b""))


def _run_worker(
    connection: socket.socket, hosts: list[PlanHost], blobs_url: str, settings: Settings
) -> None:
    """Answer until the other end closes, then leave without any clean-up of the parent's."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _limit_memory(settings.worker_memory_bytes)
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        evaluator = Evaluator(hosts, Blobs(blobs_url), settings)
        while (message := pipes.receive(connection, most_bytes=_MAX_BODY_BYTES)) is not None:
            _limit_cpu(settings.evaluation_cpu_s)
            task = task_of(message)
            answer = perform(evaluator, task)
            pipes.send(connection, answer)
            if answer[0].get("last"):
                break
            if answer[1]:
                evaluator.make_ready(task)
    finally:
        os._exit(0)


def _limit_memory(allowance_bytes: int) -> None:
    """Let the process take so much address space beyond what it was forked with."""
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + allowance_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _limit_cpu(seconds: float) -> None:
    """Let the process use so much more processor time; the kernel ends it beyond."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    wanted = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (wanted, hard))


if __name__ == "__main__":
    main(int(sys.argv[1]))
    os._exit(0)  # taking gigabytes of weights apart object by object would be of no use
