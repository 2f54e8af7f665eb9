"""The real service: records are encrypted, sent over HTTP, answered and decrypted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from attacks.errors import DataSplitError, InterruptedOracleError
from attacks.oracle import LABELS, LOGITS, SLOTS, Answer, MeteredOracle, OracleInfo
from he_infer.client import Client, Prediction
from he_infer.client_spec import OutOfRangeWarning
from he_infer.errors import ServiceError, WireError
from he_infer.plan import Plan
from he_infer.server import BackgroundServer


class RemoteOracle(MeteredOracle):
    """A model behind a server, asked through a client; ``batch`` records share one request.

    Records outside [``low``, ``high``] (by default the range the plan was calibrated for) are
    refused with DataSplitError unless ``beyond_range``: a polynomial outside its range answers
    noise, or numbers that do not fit the ciphertext. Raises InterruptedOracleError when the
    server stops answering; requests answered before it are lost to this call, so ask through
    ``Recorded``, which keeps each one.
    """

    def __init__(
        self,
        client: Client,
        *,
        name: str | None = None,
        low: float | None = None,
        high: float | None = None,
        beyond_range: bool = False,
    ) -> None:
        spec = client.spec
        super().__init__(
            OracleInfo(
                name=spec.model if name is None else name,
                kind="encrypted",
                input_shape=spec.input_shape,
                classes=spec.n_outputs,
                low=spec.input_range[0] if low is None else low,
                high=spec.input_range[1] if high is None else high,
                answers=frozenset({LOGITS, LABELS, SLOTS}),
            )
        )
        self._client = client
        self._beyond_range = beyond_range

    @property
    def batch(self) -> int:
        """Records that one request carries."""
        return self._client.spec.batch

    def _answer(self, records: NDArray[np.float64]) -> Answer:
        if not self._beyond_range:
            self._check_range(records)
        predictions: list[Prediction] = []
        for first in range(0, len(records), self.batch):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", OutOfRangeWarning)
                    predictions.append(self._client.predict(records[first : first + self.batch]))
            except (ServiceError, WireError) as error:
                raise InterruptedOracleError(
                    f"{self.info.name}: the service stopped after {first} of {len(records)} "
                    f"records: {error}",
                    answered=first,
                ) from error
        return Answer(
            labels=np.concatenate([p.labels for p in predictions]).astype(np.int64),
            logits=np.concatenate([p.logits for p in predictions]),
            slots=np.concatenate([p.slots for p in predictions]),
            level=predictions[0].level,
            scale=predictions[0].scale,
            requests=sum(p.queries for p in predictions),
            bytes_sent=sum(p.bytes_sent for p in predictions),
            bytes_received=sum(p.bytes_received for p in predictions),
        )

    def _check_range(self, records: NDArray[np.float64]) -> None:
        low, high = self.info.low, self.info.high
        slack = 1e-9 * max(1.0, high - low)
        least, most = float(records.min()), float(records.max())
        if least < low - slack or most > high + slack:
            raise DataSplitError(
                f"{self.info.name}: records in [{least:g}, {most:g}] leave the range "
                f"[{low:g}, {high:g}] that the service was made for: scale them as in training"
            )


@contextmanager
def serve(plan: Plan, *, name: str | None = None) -> Iterator[RemoteOracle]:
    """Serve ``plan`` on a free port of the loopback interface, with fresh keys, and ask it.

    The evaluation keys are uploaded before the oracle is handed out, so they are not charged.
    """
    with (
        BackgroundServer.of_plans([plan]) as server,
        Client.connect(server.url, model=plan.name) as client,
    ):
        client.upload_keys()
        yield RemoteOracle(client, name=name)
