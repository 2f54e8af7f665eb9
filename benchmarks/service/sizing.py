"""What a deployment takes for a rate of queries: cores, memory, traffic and, given prices, money.

    python -m benchmarks sizing --case tutorial-cnn --clients 1000
    python -m benchmarks sizing --plan m.heplan --evaluate-ms 17.2 --overhead-ms 12 \\
        --core-hour-price 0.04 --gb-price 0.05

Nothing is run: times come from the cost model or from the command line, sizes from the plan. The
prices above are examples, not anybody's offer; without prices there are no costs in the rows.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.inference import cases
from benchmarks.record import Outcome
from he_infer.compiler.pipeline import compile as compile_model
from he_infer.errors import InputError
from he_infer.plan.file import load_plan
from he_infer.plan.plan import Plan, encoded_bytes
from he_infer.runtime.backends.choose import backend_class
from he_infer.runtime.executor import count_costs
from he_infer.server.workers.plan_host import PlanHost

RATES: Final = (1.0, 100.0, 10_000.0)
UTILISATION: Final = 0.6
MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What one query of ``records`` records takes, and what one client and one machine keep.

    ``evaluate_ms``: processor time of a worker. ``overhead_ms``: of the process that receives,
    checks and answers. ``key_bytes``: stored and uploaded, for each client;
    ``loaded_key_bytes``: in memory while the client is active, in each worker that serves it.
    ``weights_bytes``: encoded, in memory once a server. Raises InputError for what is negative.
    """

    evaluate_ms: float
    query_bytes: int
    reply_bytes: int
    key_bytes: int
    loaded_key_bytes: int
    weights_bytes: int = 0
    records: int = 1
    overhead_ms: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            lowest = 1 if name == "records" else 0
            if not lowest <= value < math.inf:
                raise InputError(f"expected {name} of at least {lowest}, got {value}: measure it")
        if self.evaluate_ms == 0:
            raise InputError("expected a positive evaluate_ms, got 0: measure it")

    @property
    def core_ms(self) -> float:
        return self.evaluate_ms + self.overhead_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What one rate takes.

    ``cores`` are whole ones; ``busy_cores`` would do if none ever idled.
    ``servers``: fewest ``he-infer serve`` processes, since all that is not evaluation happens on
    one core in each; every one holds the weights, ``weights_memory_bytes`` together.
    ``key_memory_bytes`` holds each client's keys once; ``key_memory_most_bytes`` in a worker on
    every core. ``in_bits_per_s``, ``out_bits_per_s``: bodies, as the server sees them. Prices are
    per million queries, of cores that are paid for whether they work or not; None without prices.
    """

    queries_per_s: float
    records_per_s: float
    busy_cores: float
    cores: int
    servers: int
    weights_memory_bytes: int
    key_memory_bytes: int
    key_memory_most_bytes: int
    key_storage_bytes: int
    in_bits_per_s: float
    out_bits_per_s: float
    core_price: float | None
    traffic_price: float | None
    price: float | None


def deployments(
    footprint: Footprint,
    *,
    clients: int,
    utilisation: float = UTILISATION,
    core_hour_price: float | None = None,
    gb_price: float | None = None,
    rates: Sequence[float] = RATES,
) -> list[Deployment]:
    """Size a deployment for each of ``rates`` queries per second from ``clients`` active clients.

    ``utilisation``: share of the time that cores are to work, so that queries seldom wait.
    ``core_hour_price``, ``gb_price`` (of 10^9 bytes of replies) in whatever currency. Raises
    InputError for values that make no sense.
    """
    if clients < 1:
        raise InputError(f"expected at least 1 active client, got {clients}: count those with keys")
    if not 0 < utilisation <= 1:
        raise InputError(f"expected a utilisation above 0 and at most 1, got {utilisation}")
    for rate in rates:
        if not 0 < rate < math.inf:
            raise InputError(f"expected a positive rate of queries per second, got {rate}")
    for price in (core_hour_price, gb_price):
        if price is not None and not 0 <= price < math.inf:
            raise InputError(f"expected a price of at least 0, got {price}: leave out what is free")
    traffic_price = None if gb_price is None else MILLION * footprint.reply_bytes / 1e9 * gb_price
    keys = clients * footprint.loaded_key_bytes
    found = []
    for rate in rates:
        busy = rate * footprint.core_ms / 1e3
        cores = _whole(busy / utilisation)
        servers = _whole(rate * footprint.overhead_ms / 1e3 / utilisation)
        hours = MILLION / rate / 3600
        core_price = None if core_hour_price is None else cores * hours * core_hour_price
        prices = [part for part in (core_price, traffic_price) if part is not None]
        found.append(
            Deployment(
                queries_per_s=rate,
                records_per_s=rate * footprint.records,
                busy_cores=busy,
                cores=cores,
                servers=servers,
                weights_memory_bytes=servers * footprint.weights_bytes,
                key_memory_bytes=keys,
                key_memory_most_bytes=keys * cores,
                key_storage_bytes=clients * footprint.key_bytes,
                in_bits_per_s=8 * rate * footprint.query_bytes,
                out_bits_per_s=8 * rate * footprint.reply_bytes,
                core_price=core_price,
                traffic_price=traffic_price,
                price=sum(prices) if prices else None,
            )
        )
    return found


def _whole(needed: float) -> int:
    # Less a trifle, so that a rounding error does not buy a core.
    return max(1, math.ceil(needed - 1e-9))


def footprint_of(
    plan: Plan, *, evaluate_ms: float | None = None, overhead_ms: float = 0.0
) -> Footprint:
    """The footprint of a plan on the encrypted backend that this machine has.

    ``evaluate_ms`` None: as the cost model predicts. Encodes the weights, which takes seconds.
    """
    backend = backend_class()
    if evaluate_ms is None:
        evaluate_ms = count_costs(plan, backend.costs).milliseconds
    facts = PlanHost(plan).facts
    return Footprint(
        evaluate_ms=evaluate_ms,
        overhead_ms=overhead_ms,
        query_bytes=facts.query_bytes,
        reply_bytes=facts.reply_bytes,
        key_bytes=facts.keys_bytes,
        loaded_key_bytes=facts.loaded_keys_bytes,
        weights_bytes=encoded_bytes(plan, packed=backend.packed),
        records=plan.batch,
    )


def lines(name: str, footprint: Footprint, sized: Sequence[Deployment]) -> list[str]:
    """For people: what a query takes, then one line for each rate."""
    overhead = f" and {footprint.overhead_ms:.3g} ms beside it" if footprint.overhead_ms else ""
    found = [
        f"{name}: {footprint.records} record(s) a query, {footprint.evaluate_ms:.3g} ms of a core"
        f"{overhead}, {size(footprint.query_bytes)} in, {size(footprint.reply_bytes)} out; keys of "
        f"a client {size(footprint.key_bytes)} stored, {size(footprint.loaded_key_bytes)} loaded; "
        f"weights {size(footprint.weights_bytes)}"
    ]
    for row in sized:
        price = "" if row.price is None else f", {row.price:,.2f} per million queries"
        found.append(
            f"{row.queries_per_s:,g} queries/s: {row.cores:,} core(s) in {row.servers:,} server(s) "
            f"with {size(row.weights_memory_bytes)} of weights, keys "
            f"{size(row.key_memory_bytes)} in memory (at most {size(row.key_memory_most_bytes)}), "
            f"{size(row.key_storage_bytes)} stored, {_bits(row.in_bits_per_s)} in, "
            f"{_bits(row.out_bits_per_s)} out{price}"
        )
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--plan", type=Path, help="plan file")
    what.add_argument("--case", choices=cases.NAMES, help="network that is compiled")
    parser.add_argument("--batch", type=int, default=1, help="records per query, with --case")
    parser.add_argument("--clients", type=int, default=100, help="active at a time, each with keys")
    parser.add_argument("--evaluate-ms", type=float, help="measured (default: predicted)")
    parser.add_argument(
        "--overhead-ms", type=float, default=0.0, help="processor time of the HTTP process"
    )
    parser.add_argument(
        "--utilisation", type=float, default=UTILISATION, help="share of the time that cores work"
    )
    parser.add_argument("--core-hour-price", type=float, help="of one core, in any currency")
    parser.add_argument("--gb-price", type=float, help="of 10^9 bytes that leave the server")


def run(options: argparse.Namespace) -> Outcome:
    """The deployments for a plan file or a case."""
    if options.plan is not None:
        plan = load_plan(options.plan)
    else:
        case = cases.load(options.case)
        plan = compile_model(case.model, case.sample, name=case.name, batch=options.batch)
    footprint = footprint_of(plan, evaluate_ms=options.evaluate_ms, overhead_ms=options.overhead_ms)
    asked = {"clients": options.clients, "utilisation": options.utilisation}
    asked |= {"core_hour_price": options.core_hour_price, "gb_price": options.gb_price}
    sized = deployments(footprint, **asked)
    return Outcome(
        document={
            "plan": plan.name,
            "footprint": asdict(footprint),
            **asked,
            "rows": [asdict(each) for each in sized],
        },
        lines=lines(plan.name, footprint, sized),
    )


def size(count: float) -> str:
    """A number of bytes with a decimal unit."""
    return _scaled(count, ("kB", "MB", "GB", "TB", "PB")) if count >= 1e3 else f"{count:.0f} B"


def _bits(per_s: float) -> str:
    return _scaled(per_s, ("kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"))


def _scaled(value: float, units: Sequence[str]) -> str:
    """``value`` in the largest of ``units``, each 1,000 times the one before, that it reaches."""
    power = max((i for i in range(len(units)) if value >= 1e3 ** (i + 1)), default=0)
    return f"{value / 1e3 ** (power + 1):.3g} {units[power]}"
