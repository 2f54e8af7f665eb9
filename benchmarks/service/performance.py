"""What the service costs beside the arithmetic, and what a second worker brings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from urllib.parse import urlsplit

import numpy as np

from attacks.oracles.channels import PlanChannel
from benchmarks.service.claim import Claim, Effort
from benchmarks.service.rig import Prepared, connection, rig, together, zoo_plan
from he_infer.plan.plan import Plan
from he_infer.plan.privacy import FunctionPrivacy


def overhead(effort: Effort) -> Iterator[Claim]:
    """What an exchange over loopback takes beside the arithmetic of its own evaluation.

    That is the exchange less the evaluation as its worker timed it, and what is done to a reply
    (``he_infer.plan.privacy``), timed apart because it happens within.
    """
    for name in ("digits-mlp",) if effort.quick else ("digits-mlp", "tutorial-cnn", "mnist-deep"):
        plan = zoo_plan(name)
        count = effort.of(25 if name == "mnist-deep" else 120, 40)
        sanitising, evaluated = _sanitising(plan, count)
        with rig(plan) as (server, _, query):
            # The standard library's client, which adds least of its own.
            line = HTTPConnection(urlsplit(server.url).netloc)
            beside = []
            for _ in range(count + 5):
                start = time.perf_counter()
                line.request("POST", query.path, body=query.body, headers=dict(query.headers))
                answer = line.getresponse()
                answer.read()
                took = 1e3 * (time.perf_counter() - start)
                assert answer.status == 200
                beside.append(took - float(answer.headers["x-evaluate-ms"]))
            line.close()
        outside = float(np.median(beside[5:]))
        limit = max(5.0, 0.25 * evaluated)
        yield Claim(
            name=f"overhead, {name}",
            bar="≤ 5 ms or 25 % at the median, whichever is more",
            figure=f"{outside:.1f} ms and {sanitising:.1f} ms of sanitising, beside "
            f"{evaluated:.1f} ms of arithmetic",
            holds=outside + sanitising <= limit,
        )


def _sanitising(plan: Plan, count: int) -> tuple[float, float]:
    """Median milliseconds of what is done to a reply, and of an evaluation without it."""
    channels = [PlanChannel(p) for p in (plan, replace(plan, privacy=FunctionPrivacy.unchecked()))]
    envelopes = [c.query(np.zeros((c.inputs, c.slots), dtype=np.complex128)) for c in channels]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(count):
        for side, channel, envelope in zip(times, channels, envelopes, strict=True):
            channel.answer(envelope)
            side.append(channel.evaluate_ms)
    whole, bare = (float(np.median(side)) for side in times)
    return max(0.0, whole - bare), bare


def two_workers(effort: Effort) -> Iterator[Claim]:
    """Queries a second of mnist-deep, encrypted beforehand, with one worker and with two."""
    name = "mnist-deep"
    plan = zoo_plan(name)
    seconds = effort.of(12, 5)
    rates: list[float] = []
    rounds = 1 if effort.quick else 5
    for _ in range(rounds):
        for workers in (1, 2):
            with rig(plan, "--workers", str(workers)) as (server, _, query):
                rates.append(_rate(server.url, query, seconds, threads=workers + 1))
    gains = [rates[2 * i + 1] / rates[2 * i] for i in range(rounds)]
    gain = float(np.median(gains))
    one, two = float(np.median(rates[::2])), float(np.median(rates[1::2]))
    yield Claim(
        name="two workers against one, mnist-deep",
        bar="≥ 1.7×",
        figure=f"{gain:.2f}× ({one:.2f} → {two:.2f} queries/s)",
        holds=gain >= 1.7,
    )


def _rate(url: str, query: Prepared, seconds: float, *, threads: int) -> float:
    done: list[float] = []
    stop = time.monotonic() + seconds + 2

    def ask(_: int) -> None:
        with connection(url) as http:
            while time.monotonic() < stop:
                if query.post(http).status_code == 200:
                    done.append(time.monotonic())

    together(threads, ask)
    # The first replies pay for loading keys in each worker.
    begin = stop - seconds
    counted = [moment for moment in done if begin <= moment <= stop]
    return len(counted) / seconds
