"""Bytes that mean harm: structure-aware fuzzing, the published corpus, OpenAPI, secrets."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from benchmarks.record import CHECKOUT
from benchmarks.service.claim import Claim, Effort
from benchmarks.service.rig import (
    ServerProcess,
    connection,
    he_infer_command,
    prepare,
    records_of,
    rig,
    rss_mb,
    zoo_plan,
)
from he_infer import wire
from he_infer.client.client import Client
from he_infer.client.transport import HttpTransport
from he_infer.errors import HEInferError, KeyFileError, WireError
from he_infer.keys.file import Argon2idCost, Contents, seal, unseal
from he_infer.params import CKKSParams
from he_infer.plan.file import save_plan
from he_infer.wire.protocol import HEAD_LENGTH_HEADER, IDEMPOTENCY_HEADER

CORPUS = CHECKOUT / "tests" / "vectors" / "hostile"
_CEILING_MB = 512
TIMINGS = 3  # the fastest counts: the machine may do something else in between


def fuzz(effort: Effort) -> Iterator[Claim]:
    """Mutated envelopes of every kind against the parser, in a process with a memory limit."""
    cases = effort.of(200_000, 4_000)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.service.fuzz_child", str(cases), str(_CEILING_MB)],
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout) if done.returncode == 0 else {}
    yield Claim(
        name="structure-aware fuzz of envelope, ciphertext, keys",
        bar="≥ 200k cases, no signal, memory under the ceiling, every rejection typed",
        figure=f"{found.get('cases', 0):,} cases, {found.get('refused', 0):,} refused, "
        f"{found.get('untyped', '?')} untyped, {found.get('peak_mb', 0):.0f} of {_CEILING_MB} "
        f"MB, exit {done.returncode}",
        holds=done.returncode == 0
        and found["untyped"] == 0
        and (effort.quick or found["cases"] >= 200_000),
    )


def corpus(_effort: Effort) -> Iterator[Claim]:
    """Every file of the hostile corpus, at the parser and posted to a live server."""
    manifest = json.loads((CORPUS / "manifest.json").read_text())
    slowest, refused = 0.0, 0
    for file in manifest["files"]:
        data = (CORPUS / file["name"]).read_bytes()
        expected = _expected(manifest["expected"], file["direction"])
        error, took_s = _refusal(partial(wire.read_envelope, data, expected), WireError)
        refused += type(error).__name__ == file["error"]
        slowest = max(slowest, took_s)
    statuses = []
    with rig(zoo_plan("digits-mlp")) as (server, _, query), connection(server.url) as http:
        before = max(map(rss_mb, server.workers()), default=0.0)
        for file in manifest["files"]:
            data = (CORPUS / file["name"]).read_bytes()
            body = query.with_envelope(data)
            statuses.append(http.post(query.path, headers=query.headers, content=body).status_code)
        grown = max(map(rss_mb, server.workers()), default=0.0) - before
        fine = query.post(http).status_code == 200
    count = len(manifest["files"])
    typed = sum(400 <= status < 500 for status in statuses)
    yield Claim(
        name="hostile corpus, both directions",
        bar="all rejected before load, < 50 ms, < 64 MiB extra",
        figure=f"{refused} of {count} as the manifest says, slowest {1e3 * slowest:.1f} ms; "
        f"posted: {typed} of {count} are 4xx, workers grew by {grown:.0f} MB",
        holds=refused == typed == count and slowest < 0.05 and grown < 67 and fine,
    )


def _expected(stated: dict[str, Any], direction: str) -> wire.Expected:
    make = wire.Expected.query if direction == "client to server" else wire.Expected.reply
    return make(
        CKKSParams.from_json(stated["params"]),
        plan_digest=stated["plan_digest"],
        keys_digest=stated["keys_digest"],
        count=stated["count"],
        scale=stated["scale"],
    )


def openapi(effort: Effort) -> Iterator[Claim]:
    """schemathesis drives the OpenAPI document against a live server."""
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    name, bar = "schemathesis on the OpenAPI", "no 5xx, no schema violation"
    if program is None:
        yield Claim(name=name, bar=bar, figure="schemathesis is not installed", holds=None)
        return
    with rig(zoo_plan("digits-mlp")) as (server, _, _):
        done = subprocess.run(
            [
                *(program, "run", f"{server.url}/openapi.json", "--no-color"),
                *("--max-examples", str(effort.of(100, 15)), "--phases", "fuzzing,coverage"),
                *("--checks", "not_a_server_error,response_schema_conformance"),
                *("--request-timeout", "30", "--seed", "1", "--suppress-health-check", "all"),
            ],
            capture_output=True,
            text=True,
            cwd=server.home,
        )
    summary = [line.strip() for line in done.stdout.splitlines() if "generated" in line.lower()]
    yield Claim(
        name=name,
        bar=bar,
        figure=f"exit {done.returncode}; {summary[-1] if summary else 'no summary'}",
        holds=done.returncode == 0,
    )


def key_file(effort: Effort) -> Iterator[Claim]:
    """Flip every byte of a key file; ask for a derivation that no machine should do."""
    params = CKKSParams.from_bits(4096, [30], special_bits=31)
    cheap = Argon2idCost(memory_kib=8, passes=1, lanes=1)
    data = seal(Contents(params=params, secret=bytes(512)), "words", cost=cheap)
    places = range(0, len(data), effort.of(1, 7))
    opened = 0
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << (place % 8)
        try:
            unseal(bytes(changed), "words")
            opened += 1
        except KeyFileError:
            pass
    bomb = bytearray(data)
    struct.pack_into("<III", bomb, 12, 2**31, 2**31, 2**31)
    error, took_s = _refusal(partial(unseal, bytes(bomb), "words"), KeyFileError)
    refused = error is not None and took_s < 0.05
    yield Claim(
        name="key file",
        bar="flip every byte → authentication failure; KDF bomb refused",
        figure=f"{len(places)} bytes flipped, {opened} opened; bomb refused: {refused}",
        holds=opened == 0 and refused,
    )


def _refusal(
    work: Callable[[], object], kind: type[HEInferError]
) -> tuple[HEInferError | None, float]:
    """The error of this kind that work raises every time, or None, and the fastest time in s."""
    errors, times = [], []
    for _ in range(TIMINGS):
        start = time.perf_counter()
        try:
            work()
        except kind as error:
            errors.append(error)
        times.append(time.perf_counter() - start)
    return errors[-1] if len(errors) == TIMINGS else None, min(times)


def wrong_bindings(_effort: Effort) -> Iterator[Claim]:
    """Wrong keys, another tenant's keys, replays and swapped models: never evaluated."""
    plan = zoo_plan("digits-mlp")
    other = zoo_plan("digits-mlp", model="other", precision_bits=9)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        plans = [home / "m.plan", home / "other.plan"]
        save_plan(plan, plans[0])
        save_plan(other, plans[1])
        add = ("tenants", "--state", "state", "add")
        made = [he_infer_command(home, *add, n, "--records", "50") for n in ("first", "second")]
        token = [done.stdout.strip() for done in made]
        with (
            ServerProcess(plans, "--state", "state", "--require-tokens", cwd=home) as server,
            HttpTransport(server.url, token=token[0]) as transport,
            Client.connect(transport, model="m") as client,
            connection(server.url) as http,
        ):
            client.upload_keys()
            query = prepare(client, plan, records_of(plan, 1))
            first, second = ({"authorization": f"Bearer {t}"} for t in token)

            def post(
                who: dict[str, str], *, path: str = query.path, body: bytes = query.body
            ) -> httpx.Response:
                return http.post(path, headers={**query.headers, **who}, content=body)

            def left() -> int:
                return int(http.get("/v2/budget", headers=first).json()["records_left"])

            keyed = {**first, IDEMPOTENCY_HEADER: "k" * 20}
            fine = post(keyed).status_code == 200
            before = left()
            head = int(query.headers[HEAD_LENGTH_HEADER])
            changed = bytearray(query.body)
            changed[head + 104 + 5] ^= 1  # the digest of the keys
            swapped = query.path.replace("/m/", "/other/")
            outcomes = [
                post(second).status_code == 404,  # another tenant's keys
                post({}).status_code == 401,  # no token
                post({"authorization": "Bearer hei_" + "A" * 43}).status_code == 401,
                post(first, body=bytes(changed)).status_code == 404,  # wrong keys
                post(first, path=swapped).status_code in (400, 409, 413),  # another model
                # A replay with other bytes, then one with the same.
                post(keyed, body=bytes(query.body[:-1]) + b"\0").status_code == 409,
            ]
            replayed = post(keyed)
            outcomes.append(
                replayed.status_code == 200 and replayed.headers.get("idempotent-replay") == "true"
            )
            uncharged = left() == before
    yield Claim(
        name="cross-tenant, wrong keys, replay, model swap",
        bar="100 % refused before evaluation",
        figure=f"{sum(outcomes)} of {len(outcomes)} as they should be; nothing charged: "
        f"{uncharged}",
        holds=all(outcomes) and uncharged and fine,
    )
