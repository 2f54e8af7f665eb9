"""The encrypted service without cryptography: exact values plus the noise that CKKS adds."""

from __future__ import annotations

import numpy as np

from attacks.core.arrays import Floats
from attacks.core.oracle import Answer, MeteredOracle, as_logits
from attacks.oracles.served import served_info, within_stated_range
from he_infer.compiler.report import simulate_query
from he_infer.plan.plan import Plan


class SimulatedOracle(MeteredOracle):
    """Answers logits and all slots of ``plan`` with simulated noise, drawn from ``rng``.

    ``low``, ``high``: the interval of input values, by default the calibrated one. Records
    outside raise DataSplitError: a plan's answers mean nothing there. A wider interval than the
    calibrated one is for an adversary who leaves it on purpose.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        rng: np.random.Generator,
        name: str | None = None,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        spec = plan.client_spec
        super().__init__(
            served_info(spec, kind="simulated", name=name or plan.name, low=low, high=high),
            bounded=True,
        )
        self._plan = plan
        self._rng = rng

    def _answer(self, records: Floats) -> Answer:
        spec = self._plan.client_spec
        with within_stated_range():
            slots = simulate_query(self._plan, records, rng=self._rng)
        logits = as_logits(spec.unpack(slots, len(records)))
        return Answer(
            labels=np.argmax(logits, axis=1).astype(np.int64),
            logits=logits,
            slots=slots,
            level=spec.output_level,
            scale=spec.output_scale,
        )
