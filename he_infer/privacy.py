"""What is done to a reply so that it says the outputs and as little else as possible.

*Real part.* A client may encrypt x + iy; a network with real weights then answers two real
numbers in each slot. Adding the conjugate leaves one: the price is one key switch on the last
level, whose key is the smallest there is.

*Re-randomising.* A fresh encryption of zero under the client's public key replaces the
randomness of the reply, which is a function of the weights.

*Flooding.* The noise of a reply depends on the weights as well. Its last contribution, the
rounding of the rescale, does not: per coefficient a standard deviation of

    σ = sqrt((1 + 2N/3) / 12),          a ternary secret of N coefficients, 2N/3 of them not 0

A polynomial with coefficients uniform on [−2^b, 2^b), b = ceil(log2(√3·σ)) + flooding_bits, adds
noise 2^flooding_bits times that, and costs as many bits of precision. What depends on weights
stays visible to who averages enough replies: this mitigates, and proves nothing (circuit
privacy needs flooding by 2^λ: Kluczniak and Santato, ePrint 2023/301).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Self

from he_infer.errors import ParameterError

FLOODING_BITS: Final = 3
MAX_FLOODING_BITS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionPrivacy:
    """``real_part``: add the conjugate; a plan without it counts two records for each one.

    ``flooding_bits``: see above; None adds neither flooding nor a fresh encryption of zero.
    ``spills``: the last layer may leave partial sums and biases in slots outside the reply.
    Raises ParameterError for flooding out of range.
    """

    real_part: bool = True
    flooding_bits: int | None = FLOODING_BITS
    spills: bool = False

    def __post_init__(self) -> None:
        if self.flooding_bits is not None and not 0 <= self.flooding_bits <= MAX_FLOODING_BITS:
            raise ParameterError(
                f"flooding_bits must lie in 0 … {MAX_FLOODING_BITS}, got {self.flooding_bits}"
            )

    @classmethod
    def unchecked(cls) -> Self:
        """No defence at all: what the attacks must break, so that they are known to work."""
        return cls(real_part=False, flooding_bits=None, spills=True)

    @property
    def is_unchecked(self) -> bool:
        """Whether anything is missing that only a plan for tests may lack."""
        return self.spills or self.flooding_bits is None

    @property
    def records_per_slot(self) -> int:
        """Real numbers that one slot of a reply can tell."""
        return 1 if self.real_part else 2


def flooding_width_bits(n: int, flooding_bits: int) -> int:
    """b of the formula above, for ring degree ``n``."""
    rounding = math.sqrt((1 + 2 * n / 3) / 12)
    return math.ceil(math.log2(math.sqrt(3) * rounding)) + flooding_bits


def flooding_std(n: int, flooding_bits: int, scale: float) -> float:
    """Standard deviation that flooding adds to the real part of a slot, in units of outputs."""
    coefficient = 2.0 ** flooding_width_bits(n, flooding_bits) / math.sqrt(3)
    return coefficient * math.sqrt(n / 2) / scale
