"""What is done to a reply so that it says the outputs and as little else as possible.

*Real part.* A client may encrypt x + iy; a network with real weights then answers two real
numbers in each slot. Adding the conjugate leaves one: the price is one key switch on the last
level, whose key is the smallest there is.

*Re-randomising.* A fresh encryption of zero under the client's public key replaces the
randomness of the reply, which is a function of the weights.

*Flooding.* The noise of a reply depends on the weights as well. A polynomial with coefficients
uniform on [−2^b, 2^b) is added to it, whose real part in a slot has a standard deviation of

    2^b / √3 · √(N/2) / scale  ≤  flooding_std,      b the largest integer for which that holds

By default flooding_std is half of the error that the plan's precision allows: a server says no
more than it promised. What depends on weights stays visible to who averages enough replies.
This mitigates, and proves nothing: circuit privacy needs flooding by 2^λ times the noise
(Kluczniak and Santato, ePrint 2023/301).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from he_infer.errors import ParameterError


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionPrivacy:
    """``real_part``: add the conjugate; a plan without it counts two records for each one.

    ``flooding_std``: in units of the outputs; 0 adds neither flooding nor a fresh encryption of
    zero. ``spills``: the last layer may leave partial sums and biases in slots outside the reply.
    Raises ParameterError for flooding out of range.
    """

    real_part: bool = True
    flooding_std: float = 2.0**-11
    spills: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.flooding_std < 2.0**20:
            raise ParameterError(f"flooding_std must lie in 0 … 2^20, got {self.flooding_std}")

    @classmethod
    def for_precision(cls, bits: int) -> Self:
        """All defences, within an error of standard deviation 2^−bits."""
        return cls(flooding_std=2.0 ** -(bits + 1))

    @classmethod
    def unchecked(cls) -> Self:
        """No defence at all: what the attacks must break, so that they are known to work."""
        return cls(real_part=False, flooding_std=0.0, spills=True)

    @property
    def records_per_slot(self) -> int:
        """Real numbers that one slot of a reply can tell."""
        return 1 if self.real_part else 2


def flooding_bits(n: int, std: float, scale: float) -> int:
    """b of the formula above; 0 where not even single units fit below ``std``."""
    return max(0, math.floor(math.log2(std * scale * math.sqrt(3) / math.sqrt(n / 2))))


def flooding_std(n: int, bits: int, scale: float) -> float:
    """What coefficients uniform on [−2^bits, 2^bits) add to the real part of a slot."""
    return 2.0**bits / math.sqrt(3) * math.sqrt(n / 2) / scale
