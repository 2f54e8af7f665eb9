"""The demonstration: a real server process, real keys, encrypted MNIST digits over HTTP."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from he_infer import zoo
from he_infer.cli.demo_report import Answered, Batched, DemoReport, draw_digit
from he_infer.client.client import Client
from he_infer.compiler.pipeline import compile as compile_model
from he_infer.errors import InputError, ServiceError
from he_infer.keys.secret import SecretKeys
from he_infer.plan.file import save_plan
from he_infer.plan.plan import Plan
from he_infer.progress import Progress

CALIBRATION: Final = 1024
STOP_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """``images`` are sent one query each, then ``batch`` in one query (0: none)."""

    model: str
    images: int
    batch: int

    def __post_init__(self) -> None:
        most = len(zoo.test_set(self.model))
        if not 1 <= self.images <= most or not 0 <= self.batch <= most:
            raise InputError(
                f"{self.images} images and a batch of {self.batch}: the test set has {most}"
            )


def run(config: DemoConfig, *, progress: Progress | None = None) -> DemoReport:
    """Compile, serve, encrypt, ask, decrypt, compare; raises HEInferError if any of it fails."""
    torch.set_num_threads(1)
    model = zoo.load(config.model)
    sample = zoo.sample(config.model, CALIBRATION)
    plans = [compile_model(model, sample, name=config.model)]
    if config.batch:
        capacity = 1 << max(0, math.ceil(math.log2(config.batch)))
        name = f"{config.model}-batch"
        plans.append(compile_model(model, sample, name=name, batch=capacity))
    test = zoo.test_set(config.model)
    records = zoo.inputs(config.model, test)[: max(config.images, config.batch)]
    with torch.no_grad():
        expected = model.double()(torch.from_numpy(records.astype(np.float64))).numpy()
    with serving(plans) as address:
        single = _connect(address, plans[0], progress)
        with single as (client, keygen_ms, upload_keys_ms):
            answers, sent, received = _one_by_one(
                client, config, records, expected, test.labels, test.images
            )
        batched = None
        if config.batch:
            with _connect(address, plans[1], progress) as (client, _, _):
                batched = _in_one_query(client, records[: config.batch], expected, test.labels)
    same = sum(answer.predicted == answer.plaintext for answer in answers)
    right = sum(answer.predicted == answer.label for answer in answers)
    total, worst = len(answers), max(answer.max_error for answer in answers)
    if batched is not None:
        same += round(batched.agreement * batched.images)
        right += round(batched.accuracy * batched.images)
        total, worst = total + batched.images, max(worst, batched.max_error)
    return DemoReport(
        model=config.model,
        n=plans[0].params.n,
        log_qp=round(plans[0].params.log_qp, 2),
        security_bits=min(plan.params.security_bits for plan in plans),
        keygen_ms=keygen_ms,
        upload_keys_ms=upload_keys_ms,
        inference_agreement=same / total,
        accuracy=right / total,
        max_error=worst,
        median_ms=float(np.median([answer.total_ms for answer in answers])),
        median_evaluate_ms=float(np.median([answer.evaluate_ms for answer in answers])),
        query_bytes=sent,
        reply_bytes=received,
        answers=tuple(answers),
        batch=batched,
    )


def write(report: DemoReport, path: Path) -> None:
    """Write the figures as JSON."""
    path.write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")


@contextmanager
def serving(plans: Sequence[Plan]) -> Iterator[str]:
    """A server in a process of its own on a free loopback port; yields its address.

    The process is ended when the block is left, however it is left.
    Raises ServiceError if it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="he-infer-demo-") as folder:
        paths = []
        for index, plan in enumerate(plans):
            paths.append(str(Path(folder) / f"{index}.heplan"))
            save_plan(plan, paths[-1])
        log = Path(folder) / "server.log"
        command = [sys.executable, "-m", "he_infer", "serve", *paths, "--port", "0"]
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            )
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _address(process: subprocess.Popen[str], log: Path) -> str:
    """The address in the server's first line; readline returns early if the process ends."""
    assert process.stdout is not None
    prefix = "serving at "
    line = process.stdout.readline().strip()
    if not line.startswith(prefix):
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise ServiceError(f"the server did not start: {''.join(last) or 'it said nothing'}")
    return line.removeprefix(prefix)


@contextmanager
def _connect(
    address: str, plan: Plan, progress: Progress | None
) -> Iterator[tuple[Client, float, float]]:
    """A client with its keys on the server, and the milliseconds of making and sending them."""
    start = time.perf_counter()
    secret = SecretKeys.generate(plan.params, progress=progress)
    public = secret.evaluation_keys(plan.key_levels, progress=progress)
    made = time.perf_counter()
    with Client.connect(
        address,
        model=plan.name,
        keys=secret,
        evaluation_keys=public,
        plan_digest=plan.digest,
        progress=progress,
    ) as client:
        client.upload_keys()
        sent = time.perf_counter()
        yield client, (made - start) * 1e3, (sent - made) * 1e3


def _one_by_one(
    client: Client,
    config: DemoConfig,
    records: NDArray[np.float32],
    expected: NDArray[np.float64],
    labels: NDArray[np.int64],
    images: NDArray[np.uint8],
) -> tuple[list[Answered], int, int]:
    answers, sent, received = [], 0, 0
    for index in range(config.images):
        start = time.perf_counter()
        got = client.predict(records[index : index + 1])
        total_ms = (time.perf_counter() - start) * 1e3
        sent, received = got.bytes_sent, got.bytes_received
        answers.append(
            Answered(
                label=int(labels[index]),
                predicted=int(got.labels[0]),
                plaintext=int(expected[index].argmax()),
                max_error=float(np.abs(got.logits[0] - expected[index]).max()),
                total_ms=total_ms,
                evaluate_ms=got.timings.evaluate_ms,
                picture=draw_digit(images[index]),
            )
        )
    return answers, sent, received


def _in_one_query(
    client: Client,
    records: NDArray[np.float32],
    expected: NDArray[np.float64],
    labels: NDArray[np.int64],
) -> Batched:
    start = time.perf_counter()
    got = client.predict(records)
    total_s = time.perf_counter() - start
    count = len(records)
    evaluate_s = got.timings.evaluate_ms / 1e3
    return Batched(
        images=count,
        capacity=client.spec.batch,
        agreement=float(np.mean(got.labels == expected[:count].argmax(axis=1))),
        accuracy=float(np.mean(got.labels == labels[:count])),
        max_error=float(np.abs(got.logits - expected[:count]).max()),
        total_s=total_s,
        evaluate_s=evaluate_s,
        images_per_s=count / total_s,
        images_per_s_evaluated=count / evaluate_s,
        upload_bytes=got.bytes_sent,
        download_bytes=got.bytes_received,
    )
