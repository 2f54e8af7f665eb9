"""How certain an accuracy is that was measured on some records."""

from __future__ import annotations

import math
from typing import Final

from he_infer.errors import DataError

_Z_95: Final = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's score interval at 95 % for a proportion (E. B. Wilson, JASA 1927).

    Raises DataError unless 0 ≤ successes ≤ trials and trials ≥ 1.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise DataError(f"{successes} of {trials} is not a proportion")
    share, z2 = successes / trials, _Z_95**2
    center = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z_95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    half /= 1 + z2 / trials
    return max(0.0, center - half), min(1.0, center + half)
