"""The live service as an oracle: what it costs, where it refuses, and how it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from attacks.core.oracle import LABELS, LOGITS, SLOTS, Spent
from attacks.core.wrappers import Recorded
from attacks.errors import BadAnswerError, DataSplitError, InterruptedOracleError
from attacks.oracles.plaintext import TorchOracle
from attacks.oracles.remote import RemoteOracle, serve
from attacks.oracles.simulated import SimulatedOracle
from he_infer import zoo
from he_infer.client.client import Client
from he_infer.client.transport import HttpTransport, Request, Response
from he_infer.compiler.pipeline import compile
from he_infer.plan.file import save_plan
from he_infer.plan.plan import Plan
from tests.paths import CHECKOUT

PRECISION = 2.0**-8  # compile promises a standard deviation of a quarter of it by default
BATCH = 1024

SERVER = """
import sys
from pathlib import Path
from he_infer.server.running import run
run([Path(sys.argv[1])], port=0, on_started=lambda url: print(url, flush=True))
"""


@pytest.fixture(scope="module")
def plan() -> Plan:
    model, sample = zoo.load("digits-mlp"), zoo.sample("digits-mlp", 1024)
    return compile(model, sample, name="digits", batch=BATCH)


@pytest.fixture(scope="module")
def served(plan: Plan) -> Iterator[RemoteOracle]:
    with serve(plan) as oracle:
        yield oracle


def drawn(count: int) -> NDArray[np.float64]:
    return np.random.default_rng(5).uniform(0, 1, (count, 64))


def plain() -> TorchOracle:
    return TorchOracle(zoo.load("digits-mlp"), name="plain", input_shape=(64,), low=0.0, high=1.0)


def test_thousands_of_records_cost_seconds(served: RemoteOracle) -> None:
    before = served.ledger.spent
    answer = served.query(drawn(3000))
    spent = served.ledger.spent - before
    assert (spent.records, spent.requests, answer.requests) == (3000, 3, 3)
    assert spent.bytes_sent == answer.bytes_sent > answer.bytes_received > 0
    # Takes 2 s on busy cores; the bound is only there to notice a request per record.
    assert spent.seconds == pytest.approx(answer.seconds) and answer.seconds < 60
    exact = plain().query(drawn(3000))
    difference = np.abs(answer.require_logits() - exact.require_logits())
    assert difference.max() < PRECISION
    assert difference.max() > 0


def test_simulated_and_encrypted_agree_within_the_plans_precision(
    plan: Plan, served: RemoteOracle
) -> None:
    simulated = SimulatedOracle(plan, rng=np.random.default_rng(0))
    pair = [oracle.query(drawn(BATCH)) for oracle in (simulated, served)]
    assert np.abs(pair[0].require_logits() - pair[1].require_logits()).max() < PRECISION
    exact = plain().query(drawn(BATCH)).require_logits()
    noise = [float((answer.require_logits() - exact).std()) for answer in pair]
    assert 0.5 < noise[0] / noise[1] < 2
    shapes = {answer.slots.shape for answer in pair if answer.slots is not None}
    assert shapes == {(plan.client_spec.n_output_ciphertexts, plan.params.slots)}
    assert pair[0].level == pair[1].level == plan.client_spec.output_level
    assert pair[0].scale == pair[1].scale == plan.client_spec.output_scale


def test_what_a_plan_says_of_itself(plan: Plan, served: RemoteOracle) -> None:
    info = served.info
    assert (info.kind, info.name, info.batch) == ("encrypted", "digits", BATCH)
    assert (info.low, info.high) == plan.input_range == (0.0, 1.0)
    assert info.answers == {LOGITS, LABELS, SLOTS}
    simulated = SimulatedOracle(plan, rng=np.random.default_rng(0), name="noise")
    assert (simulated.info.kind, simulated.info.name) == ("simulated", "noise")
    assert simulated.info.version == info.version == plan.digest


def test_records_outside_the_range_are_refused_unless_it_is_stated_wider(plan: Plan) -> None:
    rng = np.random.default_rng(0)
    records = drawn(2) - 0.5
    narrow = SimulatedOracle(plan, rng=rng)
    with pytest.raises(DataSplitError, match=r"outside \[0, 1\]"):
        narrow.query(records)
    assert narrow.ledger.spent == Spent()
    wide = SimulatedOracle(plan, rng=rng, low=-1.0, high=1.0)
    assert (wide.info.low, wide.info.high) == (-1.0, 1.0)
    assert len(wide.query(records)) == 2


def test_the_live_service_refuses_them_before_anything_is_sent(served: RemoteOracle) -> None:
    before = served.ledger.spent
    with pytest.raises(DataSplitError, match=r"outside \[0, 1\]"):
        served.query(drawn(2) - 0.5)
    assert served.ledger.spent == before


class Garbled:
    """A server between us and the real one that spoils replies to queries."""

    def __init__(self, url: str) -> None:
        self._inner = HttpTransport(url)

    def request(self, request: Request) -> Response:
        answer = self._inner.request(request)
        if not request.path.endswith("/infer"):
            return answer
        return Response(status=200, headers=answer.headers, body=answer.body[:-1])

    def close(self) -> None:
        self._inner.close()


class Started:
    """A server in a process of its own, which can be killed."""

    def __init__(self, plan_file: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(plan_file)],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # Its temporary state stays behind when it is killed: pytest deletes it here.
            env={**os.environ, "TMPDIR": str(plan_file.parent)},
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:")

    def kill(self) -> None:
        self._process.kill()
        assert self._process.wait(120) == -signal.SIGKILL
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.mark.slow
def test_a_service_killed_half_way_leaves_what_was_paid_for(tmp_path: Path) -> None:
    plan = compile(zoo.load("digits-mlp"), zoo.sample("digits-mlp", 256), name="digits", batch=64)
    save_plan(plan, tmp_path / "p.heplan")
    records, answers = drawn(5 * 64), tmp_path / "answers"
    first = Started(tmp_path / "p.heplan")
    answered = 0

    def kill_after_two(stage: str, done: int, total: int) -> None:
        nonlocal answered
        if stage == "queries":
            answered += 1
            if answered == 2:
                first.kill()

    try:
        with Client.connect(first.url, model="digits", progress=kill_after_two) as client:
            oracle = RemoteOracle(client)
            recorded = Recorded(oracle, answers)
            with pytest.raises(InterruptedOracleError, match="128 of 320 records") as died:
                recorded.query(records)
            assert died.value.answered == 128
            assert (oracle.ledger.spent.records, oracle.ledger.spent.requests) == (192, 3)
            recorded.close()
    finally:
        if answered < 2:
            first.kill()
    # A new service with new keys: what the first answered is neither asked nor paid again.
    with serve(plan) as again:
        answer = Recorded(again, answers).query(records)
        assert (again.ledger.spent.records, again.ledger.spent.requests) == (192, 3)
    exact = plain().query(records).require_logits()
    assert np.abs(answer.require_logits() - exact).max() < PRECISION


def test_a_garbled_reply_is_a_bad_answer_and_paid(plan: Plan) -> None:
    from he_infer.server import BackgroundServer

    with BackgroundServer.of_plans([plan]) as server:
        transport = Garbled(server.url)
        with Client.connect(transport, model="digits") as client:
            oracle = RemoteOracle(client)
            with pytest.raises(BadAnswerError, match="malformed reply"):
                oracle.query(drawn(3))
            assert oracle.ledger.spent.records == 3
