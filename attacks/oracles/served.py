"""What a served plan tells its clients, as an adversary sees it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from attacks.core.oracle import LABELS, LOGITS, SLOTS, OracleInfo
from he_infer.plan.client_spec import ClientSpec, OutOfRangeWarning


def served_info(
    spec: ClientSpec, *, kind: str, name: str, low: float | None, high: float | None
) -> OracleInfo:
    """The public facts in ``spec``; ``low``, ``high`` None take the calibrated interval.

    Raises DataSplitError if that interval is empty, as for a sample of one value.
    """
    return OracleInfo(
        name=name,
        kind=kind,
        input_shape=spec.input_shape,
        classes=max(2, spec.n_outputs),
        low=spec.input_range[0] if low is None else float(low),
        high=spec.input_range[1] if high is None else float(high),
        answers=frozenset({LOGITS, LABELS, SLOTS}),
        batch=spec.batch,
        version=spec.plan_digest,
    )


@contextmanager
def within_stated_range() -> Iterator[None]:
    """Silence the client's range warning: the oracle has held records to its stated interval."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfRangeWarning)
        yield
