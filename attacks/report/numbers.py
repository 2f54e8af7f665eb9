"""Figures for people: rates as percentages, counts with separators, three digits that matter."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from attacks.core.intervals import Estimate
from attacks.core.oracle import Spent
from attacks.oracles.twins import ENCRYPTED, POLYNOMIAL, RELU, SIMULATED

# Figures that are shares of something, and read best in percent.
_SHARES: Final = (
    "accuracy",
    "train_accuracy",
    "fidelity",
    "tpr",
    "fpr",
    "advantage",
    "precision",
    "agreement",
    "transfer",
    "success",
    "robust_accuracy",
)
_NAMES: Final = {
    "auc": "AUC",
    "tpr_at_10pct": "TPR at 10 % FPR",
    "tpr_at_1pct": "TPR at 1 % FPR",
    "tpr_at_0.1pct": "TPR at 0.1 % FPR",
    "tpr_at_shadow_threshold": "TPR, threshold set on a shadow",
    "fpr_at_shadow_threshold": "FPR, threshold set on a shadow",
    "epsilon_lower_bound": "ε, lower bound",
    "fidelity_test": "fidelity, test records",
    "fidelity_uniform": "fidelity, uniform inputs",
    "accuracy": "accuracy",
    "success": "fooled, of records labelled right",
    "robust_accuracy": "accuracy under attack",
    "median_size": "median size of the change",
    "max_logit_error": "max logit error",
    "logit_error_bits": "logit error, bits",
    "total_variation_test": "total variation, test records",
    "total_variation_uniform": "total variation, uniform inputs",
}
_TWINS: Final = {
    RELU: "ReLU, in the clear",
    POLYNOMIAL: "polynomial, in the clear",
    SIMULATED: "simulated service",
    ENCRYPTED: "encrypted service",
}


def metric_name(name: str) -> str:
    return _NAMES.get(name, name.replace("_", " "))


def twin_name(name: str) -> str:
    return _TWINS.get(name, name)


def is_share(metric: str) -> bool:
    return any(metric.startswith(prefix) for prefix in _SHARES)


def value_text(value: float, metric: str) -> str:
    """97.3 % for shares, 0.764 for the rest."""
    if is_share(metric):
        return f"{100 * value:.1f} %"
    return number(value)


def interval_text(estimate: Estimate, metric: str) -> str:
    """[97.1, 98.0] %, or "exact" for a figure without sampling error."""
    low, high = estimate.low, estimate.high
    if estimate.method == "exact" or low == high:
        return estimate.method
    if is_share(metric):
        return f"[{100 * low:.1f}, {100 * high:.1f}] %"
    return f"[{number(low)}, {number(high)}]"


def difference_text(estimate: Estimate, metric: str) -> str:
    """−1.2 [−2.0, −0.3] in percentage points for shares, plain otherwise."""
    factor, unit, digits = (100.0, " points", 1) if is_share(metric) else (1.0, "", 3)

    def signed(value: float) -> str:
        text = f"{value * factor:+.{digits}f}"
        return text.replace("-", "−")

    low, value, high = map(signed, (estimate.low, estimate.value, estimate.high))
    return f"{value} [{low}, {high}]{unit}"


def number(value: float) -> str:
    """Three significant digits, without an exponent where people need none."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:.2e}"


def size(count: float) -> str:
    """Bytes as kB, MB or GB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1e3 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def moment(iso: str) -> str:
    """2026-11-24, 03:48 UTC; what is no ISO time is shown as it came."""
    try:
        at = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    return f"{at:%Y-%m-%d, %H:%M} {at.tzname() or ''}".strip()


def queries(spent: Spent) -> str:
    """1,024 records in 1 request."""
    return f"{_counted(spent.records, 'record')} in {_counted(spent.requests, 'request')}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
