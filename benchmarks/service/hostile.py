"""Bytes that mean harm: structure-aware fuzzing, the published corpus, OpenAPI, secrets."""

from __future__ import annotations

import json
import resource
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.record import CHECKOUT
from benchmarks.service.rig import ServerProcess, connection, rig, rss_mb, zoo_plan
from benchmarks.service.row import Effort, Row
from he_infer import wire
from he_infer.client.transport import HttpTransport
from he_infer.errors import HEInferError, KeyFileError, WireError
from he_infer.keys.file import Argon2idCost, Contents, seal, unseal
from he_infer.params import CKKSParams
from he_infer.plan.file import save_plan
from he_infer.wire.protocol import HEAD_LENGTH_HEADER

CORPUS = CHECKOUT / "tests" / "vectors" / "hostile"
_CEILING_MB = 512
TIMINGS = 3  # the fastest counts: the machine may do something else in between


def fuzz(effort: Effort) -> list[Row]:
    """Mutated envelopes of every kind against the parser, in a process with a memory limit."""
    cases = effort.of(200_000, 4_000)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.service.fuzz_child", str(cases), str(_CEILING_MB)],
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout) if done.returncode == 0 else {}
    return [
        Row(
            name="structure-aware fuzz of envelope, ciphertext, keys",
            bar="≥ 200k cases, no signal, memory under the ceiling, every rejection typed",
            figure=f"{found.get('cases', 0):,} cases, {found.get('refused', 0):,} refused, "
            f"{found.get('untyped', '?')} untyped, {found.get('peak_mb', 0):.0f} of {_CEILING_MB} "
            f"MB, exit {done.returncode}",
            holds=done.returncode == 0
            and found["untyped"] == 0
            and (effort.quick or found["cases"] >= 200_000),
        )
    ]


def corpus(effort: Effort) -> list[Row]:
    """Every file of the hostile corpus, at the parser and posted to a live server."""
    del effort
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
            head = query.body[: int(query.headers[HEAD_LENGTH_HEADER])]
            # Padded to the length that is accepted, so that it is not refused for that alone.
            body = (head + data).ljust(len(query.body), b"\0")[: len(query.body)]
            statuses.append(http.post(query.path, headers=query.headers, content=body).status_code)
        grown = max(map(rss_mb, server.workers()), default=0.0) - before
        fine = query.post(http).status_code == 200
    count = len(manifest["files"])
    typed = sum(400 <= status < 500 for status in statuses)
    return [
        Row(
            name="hostile corpus, both directions",
            bar="all rejected before load, < 50 ms, < 64 MiB extra",
            figure=f"{refused} of {count} as the manifest says, slowest {1e3 * slowest:.1f} ms; "
            f"posted: {typed} of {count} are 4xx, workers grew by {grown:.0f} MB",
            holds=refused == typed == count and slowest < 0.05 and grown < 67 and fine,
        )
    ]


def _expected(stated: dict[str, Any], direction: str) -> wire.Expected:
    make = wire.Expected.query if direction == "client to server" else wire.Expected.reply
    return make(
        CKKSParams.from_json(stated["params"]),
        plan_digest=stated["plan_digest"],
        keys_digest=stated["keys_digest"],
        count=stated["count"],
        scale=stated["scale"],
    )


def openapi(effort: Effort) -> list[Row]:
    """schemathesis drives the OpenAPI document against a live server."""
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    name, bar = "schemathesis on the OpenAPI", "no 5xx, no schema violation"
    if program is None:
        return [Row(name=name, bar=bar, figure="schemathesis is not installed", holds=None)]
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
            cwd=Path(server.log).parent,
        )
    summary = [line.strip() for line in done.stdout.splitlines() if "generated" in line.lower()]
    return [
        Row(
            name=name,
            bar=bar,
            figure=f"exit {done.returncode}; {summary[-1] if summary else 'no summary'}",
            holds=done.returncode == 0,
        )
    ]


def secret_canary(effort: Effort) -> list[Row]:
    """A TenSEAL context with its secret key, posted by mistake, leaves no trace of itself."""
    del effort
    secret = (CORPUS / "query_tenseal_context_with_secret.bin").read_bytes()
    tail = secret[-512:]
    codes = []
    with rig(zoo_plan("digits-mlp"), "--state", "state") as (server, client, query):
        home = Path(server.log).parent
        with connection(server.url) as http:
            head = query.body[: int(query.headers[HEAD_LENGTH_HEADER])]
            padded = (head + secret).ljust(len(query.body), b"\0")[: len(query.body)]
            for body in (padded, secret):
                reply = http.post(query.path, headers=query.headers, content=body)
                codes.append(reply.json()["code"])
            begun = http.post(f"/v2/models/{client.spec.model}/keys/uploads")
            total = begun.json()["bytes"]
            headers = {"content-range": f"bytes 0-{len(secret) - 1}/{total}"}
            reply = http.patch(begun.headers["location"], headers=headers, content=secret)
            codes.append(reply.json()["code"])
        server.stop()
        touched = [
            path.name
            for path in home.rglob("*")
            if path.is_file() and any(part in path.read_bytes() for part in (tail, secret[64:128]))
        ]
    return [
        Row(
            name="secret canary",
            bar="refused; secret bytes absent from disk, logs and database",
            figure=f"{codes.count('secret_key_posted')} of {len(codes)} refused as burnt, "
            f"{len(touched)} files hold a piece of it",
            holds=set(codes) == {"secret_key_posted"} and not touched,
        )
    ]


def key_file(effort: Effort) -> list[Row]:
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
    return [
        Row(
            name="key file",
            bar="flip every byte → authentication failure; KDF bomb refused",
            figure=f"{len(places)} bytes flipped, {opened} opened; bomb refused: {refused}",
            holds=opened == 0 and refused,
        )
    ]


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


def wrong_bindings(effort: Effort) -> list[Row]:
    """Wrong keys, another tenant's keys, replays and swapped models: never evaluated."""
    del effort
    plan = zoo_plan("digits-mlp")
    other = zoo_plan("digits-mlp", model="other", precision_bits=9)
    outcomes = []
    with rig(plan, "--state", "state") as (server, client, query):
        home = Path(server.log).parent
        server.stop()
        save_plan(other, home / "other.plan")
        token = [
            subprocess.run(
                [
                    *(sys.executable, "-m", "he_infer", "tenants", "--state", "state"),
                    *("add", name, "--records", "50"),
                ],
                capture_output=True,
                text=True,
                cwd=home,
                check=True,
            ).stdout.strip()
            for name in ("first", "second")
        ]
        plans = [home / "m.plan", home / "other.plan"]
        with (
            ServerProcess(plans, "--state", "state", "--require-tokens", cwd=home) as again,
            connection(again.url) as http,
        ):
            with HttpTransport(again.url, token=token[0]) as transport:
                replaced = client._transport
                assert isinstance(replaced, HttpTransport)
                replaced.close()
                client._transport, client._uploaded = transport, False
                client.upload_keys()
            first, second = ({"authorization": f"Bearer {t}"} for t in token)

            def post(
                who: dict[str, str],
                *,
                path: str = query.path,
                body: bytes = query.body,
                key: str | None = None,
            ) -> Any:
                extra = {} if key is None else {"idempotency-key": key}
                return http.post(path, headers={**query.headers, **who, **extra}, content=body)

            def left() -> int:
                return int(http.get("/v2/budget", headers=first).json()["records_left"])

            fine = post(first, key="k" * 20).status_code == 200
            before = left()
            head = int(query.headers[HEAD_LENGTH_HEADER])
            changed = bytearray(query.body)
            changed[head + 104 + 5] ^= 1  # the digest of the keys
            tries = {
                "another tenant's keys": (post(second), 404),
                "no token": (post({}), 401),
                "a false token": (post({"authorization": "Bearer hei_" + "A" * 43}), 401),
                "wrong keys": (post(first, body=bytes(changed)), 404),
                "swapped model": (
                    post(first, path=query.path.replace("/m/", "/other/")),
                    (400, 409, 413),
                ),
                "replay with other bytes": (
                    post(first, key="k" * 20, body=bytes(query.body[:-1]) + b"\0"),
                    409,
                ),
            }
            for reply, status in tries.values():
                allowed = status if isinstance(status, tuple) else (status,)
                outcomes.append(reply.status_code in allowed)
            replayed = post(first, key="k" * 20)
            outcomes.append(
                replayed.status_code == 200 and replayed.headers.get("idempotent-replay") == "true"
            )
            uncharged = left() == before
    return [
        Row(
            name="cross-tenant, wrong keys, replay, model swap",
            bar="100 % refused before evaluation",
            figure=f"{sum(outcomes)} of {len(outcomes)} as they should be; nothing charged: "
            f"{uncharged}",
            holds=all(outcomes) and uncharged and fine,
        )
    ]


def memory_limit(megabytes: int) -> None:
    """Limit this process's address space beyond what it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
