"""What the service costs beside the arithmetic, and what a second worker brings."""

from __future__ import annotations

import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

import httpx
import numpy as np

from attacks.oracles.channels import PlanChannel
from benchmarks.service.rig import connection, rig, together, zoo_plan
from benchmarks.service.row import Effort, Row


def overhead(effort: Effort) -> list[Row]:
    """Median time of an exchange over loopback against evaluation alone, taken in turns."""
    rows = []
    for name in ("digits-mlp",) if effort.quick else ("digits-mlp", "tutorial-cnn", "mnist-deep"):
        plan = zoo_plan(name)
        bare = PlanChannel(plan)
        zeros = np.zeros((bare.inputs, bare.slots), dtype=np.complex128)
        envelope = bare.query(zeros)
        with rig(plan) as (server, _, query):
            # The standard library's client, which adds least of its own.
            line = HTTPConnection(urlsplit(server.url).netloc)
            exchanged, alone = [], []
            for index in range(effort.of(100 if name != "mnist-deep" else 20, 40) + 3):
                start = time.perf_counter()
                line.request("POST", query.path, body=query.body, headers=dict(query.headers))
                answer = line.getresponse()
                answer.read()
                assert answer.status == 200
                end = time.perf_counter()
                bare.answer(envelope)
                if index >= 3:
                    exchanged.append(1e3 * (end - start))
                    alone.append(bare.evaluate_ms)
            line.close()
        whole, evaluation = float(np.median(exchanged)), float(np.median(alone))
        limit = max(5.0, 0.25 * evaluation)
        rows.append(
            Row(
                name=f"overhead, {name}",
                bar="≤ 5 ms or 25 % at the median, whichever is more",
                figure=f"{whole - evaluation:.1f} ms over {evaluation:.1f} ms of evaluation",
                holds=whole - evaluation <= limit,
            )
        )
    return rows


def two_workers(effort: Effort) -> list[Row]:
    """Queries a second of mnist-deep, encrypted beforehand, with one worker and with two."""
    name = "mnist-deep"
    plan = zoo_plan(name)
    seconds = effort.of(20, 5)
    rates: list[float] = []
    rounds = 1 if effort.quick else 3
    for _ in range(rounds):
        for workers in (1, 2):
            with rig(plan, "--workers", str(workers)) as (server, _, query):
                rates.append(_rate(server.url, query, seconds, threads=workers + 1))
    gains = [rates[2 * i + 1] / rates[2 * i] for i in range(rounds)]
    gain = float(np.median(gains))
    one, two = float(np.median(rates[::2])), float(np.median(rates[1::2]))
    return [
        Row(
            name="two workers against one, mnist-deep",
            bar="≥ 1.7×",
            figure=f"{gain:.2f}× ({one:.2f} → {two:.2f} queries/s)",
            holds=gain >= 1.7,
        )
    ]


def _rate(url: str, query: object, seconds: float, *, threads: int) -> float:
    done: list[float] = []
    stop = time.monotonic() + seconds + 2

    def ask(_: int) -> None:
        with connection(url) as http:
            while time.monotonic() < stop:
                reply: httpx.Response = query.post(http)  # type: ignore[attr-defined]
                if reply.status_code == 200:
                    done.append(time.monotonic())

    together(threads, ask)
    # The first replies pay for loading keys in each worker.
    begin = stop - seconds
    counted = [moment for moment in done if begin <= moment <= stop]
    return len(counted) / seconds
