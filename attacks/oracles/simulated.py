"""The compiled plan with CKKS's noise, levels and scales, but without keys."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attacks.oracle import LABELS, LOGITS, Answer, MeteredOracle, OracleInfo
from he_infer.plan import Plan
from he_infer.report import simulate


class SimulatedOracle(MeteredOracle):
    """What the service would answer, noise drawn from ``rng``: the same question, another answer.

    ``low``, ``high``: the allowed inputs; by default the range that the plan was calibrated for.
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
            OracleInfo(
                name=plan.name if name is None else name,
                kind="simulated",
                input_shape=spec.input_shape,
                classes=spec.n_outputs,
                low=spec.input_range[0] if low is None else low,
                high=spec.input_range[1] if high is None else high,
                answers=frozenset({LOGITS, LABELS}),
            )
        )
        self._plan = plan
        self._rng = rng

    def _answer(self, records: NDArray[np.float64]) -> Answer:
        return Answer.of_logits(simulate(self._plan, records, rng=self._rng))
