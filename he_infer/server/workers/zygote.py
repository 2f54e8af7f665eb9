"""The process that workers are forked from: plans loaded and weights encoded, once for all.

It never sees a byte from outside. Forked workers share the encoded weights' memory, and one
that was killed is replaced in milliseconds. Started as ``python -m he_infer.server.zygote FD``
on a socket whose other end the HTTP process holds; ends when that end closes.

    → {"plans": [path …], "settings": {…}, "blobs": url}     ← {"facts": […]} or {"error": …}
    → {"fork": true} with a socket                            ← {"pid": …}
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import socket
import sys
from typing import Any, Final

from he_infer.errors import HEInferError
from he_infer.plan.file import load_plan
from he_infer.server.logs import where_raised
from he_infer.server.refusal import Refusal, refusal_for
from he_infer.server.settings import Settings
from he_infer.server.state.blobs import Blobs
from he_infer.server.workers import pipes
from he_infer.server.workers.evaluator import Evaluator
from he_infer.server.workers.plan_host import PlanHost

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
        hosts = [_host(path, settings) for path in asked["plans"]]
    except HEInferError as error:
        pipes.send(control, {"error": str(error)})
        return
    pipes.send(control, {"facts": [host.facts.to_json() for host in hosts]})
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
        pipes.send(control, {"pid": pid})


def _host(path: str, settings: Settings) -> PlanHost:
    return PlanHost(
        load_plan(path), backend=settings.backend, threads=settings.threads_per_evaluation
    )


def _run_worker(
    connection: socket.socket, hosts: list[PlanHost], blobs_url: str, settings: Settings
) -> None:
    """Answer until the other end closes, then leave without any clean-up of the parent's."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _limit_memory(settings.worker_memory_bytes)
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        evaluator = Evaluator(
            hosts,
            Blobs(blobs_url),
            cache_bytes=settings.key_cache_bytes,
            cache_ttl_s=settings.key_cache_ttl_s,
        )
        while True:
            message = pipes.receive(connection, most_bytes=_MAX_BODY_BYTES)
            if message is None:
                break
            _limit_cpu(settings.evaluation_cpu_s)
            head, body = message
            answer, reply = _answer(evaluator, head, body)
            pipes.send(connection, answer, reply)
            if answer.get("last"):
                break
            if "evaluate_ms" in answer:
                evaluator.make_ready(str(head["plan"]), body)
    finally:
        os._exit(0)


def _answer(
    evaluator: Evaluator, head: dict[str, Any], body: bytes
) -> tuple[dict[str, Any], bytes]:
    plan, tenant = str(head["plan"]), str(head["tenant"])
    try:
        if head["do"] == "check_keys":
            evaluator.check_keys(plan, tenant, str(head["keys"]))
            return {}, b""
        answer = evaluator.evaluate(plan, tenant, body)
        return {"evaluate_ms": answer.evaluate_ms}, answer.reply
    except HEInferError as error:
        refused = refusal_for(error)
        where = where_raised(error) if refused.status >= 500 else ""
    except MemoryError:
        refused = Refusal(503, "out_of_memory", "a worker ran out of memory: retry later")
        return {"refused": _refused(refused), "where": "MemoryError", "last": True}, b""
    except Exception as error:
        # Whatever it was, it may have left the process in a state that nobody thought of.
        refused, where = refusal_for(HEInferError()), where_raised(error)
        return {"refused": _refused(refused), "where": where, "last": True}, b""
    return {"refused": _refused(refused), "where": where}, b""


def _refused(refusal: Refusal) -> list[Any]:
    return [refusal.status, refusal.code, refusal.message, refusal.retry_after_s]


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
