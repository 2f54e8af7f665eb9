"""The real service: records are encrypted, sent, evaluated by the server, and decrypted here.

with serve(plan) as oracle:               # a server on loopback, keys, a client
    answer = oracle.query(records)        # plan.batch records a request
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from attacks.core.arrays import Floats
from attacks.core.oracle import Answer, MeteredOracle, as_logits
from attacks.errors import BadAnswerError, DataSplitError, InterruptedOracleError
from attacks.oracles.served import served_info, within_stated_range
from he_infer.client.client import Client
from he_infer.errors import InputError, ServiceError, WireError
from he_infer.keys.secret import SecretKeys
from he_infer.plan.plan import Plan
from he_infer.server import BackgroundServer


class RemoteOracle(MeteredOracle):
    """Answers what a client decrypts: logits, all slots, level and scale; counts bytes.

    ``client``: connected, and used by nobody else meanwhile. ``low``, ``high``: the interval of
    input values, by default the calibrated one. Records outside raise DataSplitError before
    anything is sent: the service cannot see them and answers nonsense. A wider interval than
    the calibrated one is for an adversary who leaves it on purpose. Evaluation keys, sent once,
    are not in the bytes. A server that dies or refuses raises InterruptedOracleError, a reply
    that is malformed BadAnswerError.
    """

    def __init__(
        self,
        client: Client,
        *,
        name: str | None = None,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        spec = client.spec
        super().__init__(
            served_info(spec, kind="encrypted", name=name or spec.model, low=low, high=high),
            bounded=True,
        )
        self._client = client

    def _answer(self, records: Floats) -> Answer:
        try:
            with within_stated_range():
                prediction = self._client.predict(records)
        except InputError as error:
            raise DataSplitError(f"{self._info.name}: the client refuses: {error}") from error
        except ServiceError as error:
            raise InterruptedOracleError(
                f"{self._info.name}: the service stopped answering: {error}", answered=0
            ) from error
        except WireError as error:
            raise BadAnswerError(f"{self._info.name}: a malformed reply: {error}") from error
        logits = as_logits(prediction.logits)
        return Answer(
            labels=np.argmax(logits, axis=1).astype(np.int64),
            logits=logits,
            slots=prediction.slots,
            level=prediction.level,
            scale=prediction.scale,
            requests=prediction.queries,
            bytes_sent=prediction.bytes_sent,
            bytes_received=prediction.bytes_received,
        )


@contextmanager
def serve(
    plan: Plan,
    *,
    name: str | None = None,
    low: float | None = None,
    high: float | None = None,
    keys: SecretKeys | None = None,
) -> Iterator[RemoteOracle]:
    """A server for ``plan`` on loopback with one client; keys are made and sent beforehand.

    Other arguments as for RemoteOracle; ``keys`` None draws fresh ones.
    """
    with (
        BackgroundServer.of_plans([plan]) as server,
        Client.connect(server.url, model=plan.name, keys=keys) as client,
    ):
        client.upload_keys()
        yield RemoteOracle(client, name=name, low=low, high=high)
