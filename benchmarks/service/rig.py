"""A real server in processes of its own, and clients with everything prepared."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import httpx
import numpy as np
from numpy.typing import NDArray

from he_infer import zoo
from he_infer.client.client import Client
from he_infer.compiler.pipeline import compile as compile_model
from he_infer.plan import ir
from he_infer.plan.client_spec import expected_query, expected_reply
from he_infer.plan.file import save_plan
from he_infer.plan.plan import Plan
from he_infer.wire import Ciphertext, protocol, read_envelope
from he_infer.wire.frames import write_frame

_HE_INFER: Final = (sys.executable, "-m", "he_infer")


class ServerProcess:
    """``he-infer serve`` on loopback: ``url`` is its address, ``log`` its standard error.

    ``home`` is the folder in which it runs.
    """

    def __init__(self, plans: Sequence[Path], *options: str, cwd: Path) -> None:
        self.home = cwd
        self.log = cwd / f"log-{secrets.token_hex(4)}"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*_HE_INFER, "serve", "--port", "0", *options, "--", *map(str, plans)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=cwd,
            )
        assert self.process.stdout is not None
        self._out: IO[str] = self.process.stdout
        line = self._out.readline()
        if not line:
            raise RuntimeError(f"the server did not start: {self.log.read_text()[-500:]}")
        self.url = line.split()[-1]

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        self._out.close()
        return status

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def workers(self) -> list[int]:
        """Process ids of the workers: grandchildren, forked from the process with the plans."""
        return [pid for child in children(self.process.pid) for pid in children(child)]


def he_infer_command(
    home: Path, *words: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run ``he-infer`` in a server's folder; CalledProcessError if it fails and is checked."""
    command = [*_HE_INFER, *words]
    return subprocess.run(command, cwd=home, capture_output=True, text=True, check=check)


def children(pid: int) -> list[int]:
    """Direct children of a process."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB; 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def zoo_plan(name: str, *, model: str = "m", **options: Any) -> Plan:
    """A network of the zoo, compiled."""
    return compile_model(zoo.load(name), zoo.sample(name, 256), name=model, **options)


def records_of(plan: Plan, count: int, *, seed: int = 0) -> NDArray[np.float64]:
    """(count, *input shape) drawn from the calibrated range."""
    low, high = plan.input_range
    shape = (count, *plan.graph.input.shape)
    return np.random.default_rng(seed).uniform(low, high, shape)


def in_the_clear(plan: Plan, records: NDArray[np.float64]) -> NDArray[np.float64]:
    """The plan's network on records, exact: (count, outputs)."""
    flat = records.reshape(len(records), -1)
    return ir.evaluate(plan.graph, flat)[plan.graph.output.name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An encrypted query as it is posted, and what answers it in the clear."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    exact: NDArray[np.float64]
    client: Client

    def post(self, http: httpx.Client, *, key: str | None = None) -> httpx.Response:
        """Send it; ``key``: idempotency key."""
        extra = {} if key is None else {protocol.IDEMPOTENCY_HEADER: key}
        return http.post(self.path, headers={**self.headers, **extra}, content=self.body)

    def with_envelope(self, data: bytes) -> bytes:
        """The body with other bytes behind its head, padded or cut to the length of this one.

        Bytes of another length would be refused for that alone.
        """
        head = self.body[: int(self.headers[protocol.HEAD_LENGTH_HEADER])]
        return (head + data).ljust(len(self.body), b"\0")[: len(self.body)]

    def error_of(self, reply: httpx.Response) -> float:
        """Largest error of a reply's logits."""
        spec, digest = self.client.spec, self.client._made_keys().digest
        head = int(reply.headers[protocol.HEAD_LENGTH_HEADER])
        expected = expected_reply(spec, digest)
        frames = read_envelope(reply.content[head:], expected, limit_bytes=expected.total_bytes)
        slots = np.stack(
            [self.client.keys.decrypt(f).real for f in frames if isinstance(f, Ciphertext)]
        )
        return float(np.abs(spec.unpack(slots, len(self.exact)) - self.exact).max())


def prepare(client: Client, plan: Plan, records: NDArray[np.float64]) -> Prepared:
    """Encrypt one query's records."""
    spec, digest = client.spec, client._made_keys().digest
    expected = expected_query(spec, digest)
    ciphertexts = client.keys.encrypt(spec.pack(records), spec.input_scale)
    frames = [write_frame(c, expected, index) for index, c in enumerate(ciphertexts)]
    head = protocol.query_head(expected.total_bytes)
    body = b"".join((head, expected.header.to_bytes(), *map(bytes, frames)))
    return Prepared(
        path=protocol.infer_path(spec.model),
        headers={protocol.HEAD_LENGTH_HEADER: str(len(head))},
        body=body,
        exact=in_the_clear(plan, records),
        client=client,
    )


@contextmanager
def rig(plan: Plan, *options: str) -> Iterator[tuple[ServerProcess, Client, Prepared]]:
    """A server for one plan, a client whose keys it has, and a prepared query."""
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        path = home / "m.plan"
        save_plan(plan, path)
        with (
            ServerProcess([path], *options, cwd=home) as server,
            Client.connect(server.url, model=plan.name) as client,
        ):
            client.upload_keys()
            yield server, client, prepare(client, plan, records_of(plan, 1))


def connection(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, trust_env=False, timeout=60.0)


def together(count: int, work: Any) -> None:
    """Run ``work(index)`` in threads and wait for all of them."""
    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
