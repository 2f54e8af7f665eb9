"""What is done to a reply so that it says the outputs and as little else as possible.

    reply ─► × r ─────► real part ─► + t ─────────► + flooding ─► + noise ─────► + fresh zero
             scaling                 shift          every slot    copies alike
             a record                a record                     an output

*Real part.* A client may encrypt x + iy; a network with real weights then answers two real
numbers in each slot. Adding the conjugate leaves one of them. It costs one key switch on the
last level, whose key is the smallest there is.

*Re-randomising.* The randomness of a reply is a function of the weights. A fresh encryption of
zero under the client's public key replaces it. That encryption and the flooding depend on no
query, so a worker makes them for the next reply once it has sent one (``replies.make_masks``).

*Noise flooding.* The noise of a reply depends on the weights as well. A polynomial with
coefficients uniform on [−2^b, 2^b) is added to it. Its real part in a slot has a standard
deviation of

    2^b / √3 · √(N/2) / scale  ≤  flooding_std,      b the largest integer for which that holds

By default flooding_std is half of the error that the plan's precision allows, so flooding never
costs more precision than the plan promises. An adversary who averages enough replies still sees
what depends on the weights. Flooding mitigates this and proves nothing: circuit privacy needs
flooding by 2^λ times the noise (Kluczniak and Santato, ePrint 2023/301).

*Noise, scaling, shift* perturb the outputs themselves, against model extraction; none is on by
default. The noise is drawn like flooding, of another width, with one difference. A reply repeats
its outputs, hundreds of times in the latency layout, and an adversary who averages independent
noise over the copies removes most of it. A polynomial in X^(N/2P) has slots that repeat with
period P, so every copy gets the same noise. Scaling and shift are one number for all outputs of
a record, drawn anew for each reply, and keep the label. A factor is encoded at 2^``factor_bits``
and never rescaled: those bits come from the first prime, which costs less than a level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Self

from he_infer.errors import ParameterError

# A single record's factor is one coefficient, exact whatever its scale. The factors of a batch
# are rounded in every coefficient, which moves a slot by √(N/12) units: 2^−10 of it at N = 8192.
FACTOR_BITS: Final = 10
BATCH_FACTOR_BITS: Final = 15
MAX_SCALING: Final = 256.0
NOISE_REACH: Final = 6.0  # standard deviations of noise that a reply has room for
# What a plan may do to the outputs themselves: a field of FunctionPrivacy, an option of
# `he-infer compile` of the same name, and what that option says.
PERTURBATIONS: Final = {
    "noise_std": "of noise on every output, in their units",
    "scaling": "multiply each record's outputs by a random factor in 1/SCALING … SCALING",
    "shift": "add a random number up to ±SHIFT to all of them",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionPrivacy:
    """``real_part``: add the conjugate; a plan without it counts two records for each one.

    ``flooding_std``: in units of the outputs; 0 adds neither flooding nor a fresh encryption of
    zero. ``spills``: the last layer may leave partial sums and biases in slots outside the reply.
    ``noise_std``: of noise on every output, in their units, alike in all copies of it.
    ``scaling``: multiplies all outputs of a record by one factor, log-uniform in [1/scaling,
    scaling]; 1 for none. ``shift``: adds one number, uniform on ±shift, to all outputs of a record.
    Raises ParameterError for values out of range, or for noise, scaling or shift without flooding
    and real parts, which would show what they hide.
    """

    real_part: bool = True
    flooding_std: float = 2.0**-11
    spills: bool = False
    noise_std: float = 0.0
    scaling: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flooding_std", "noise_std", "shift"):
            if not 0 <= getattr(self, name) < 2.0**20:
                raise ParameterError(f"{name} must lie in 0 … 2^20, got {getattr(self, name)}")
        if not 1 <= self.scaling <= MAX_SCALING:
            raise ParameterError(
                f"scaling is the largest factor, 1 (none) … {MAX_SCALING:g}, got {self.scaling}"
            )
        if self.perturbs and not (self.real_part and self.flooding_std and not self.spills):
            raise ParameterError(
                "noise, scaling and shift need real_part and flooding_std above 0, and no spills: "
                "a reply's imaginary parts, low bits or other slots would show them"
            )

    @classmethod
    def for_precision(
        cls, bits: int, *, noise_std: float = 0.0, scaling: float = 1.0, shift: float = 0.0
    ) -> Self:
        """All defences of the function, within an error of standard deviation 2^−bits.

        ``noise_std``, ``scaling``, ``shift``: defences of the model on top, see the class.
        """
        return cls(
            flooding_std=2.0 ** -(bits + 1), noise_std=noise_std, scaling=scaling, shift=shift
        )

    @classmethod
    def unchecked(cls) -> Self:
        """No defence at all: what the attacks must break, so that they are known to work."""
        return cls(real_part=False, flooding_std=0.0, spills=True)

    @property
    def records_per_slot(self) -> int:
        """Real numbers that one slot of a reply can tell."""
        return 1 if self.real_part else 2

    @property
    def perturbs(self) -> bool:
        """Whether outputs are blurred on purpose."""
        return self.noise_std > 0 or self.scaling > 1 or self.shift > 0

    def unperturbed(self) -> Self:
        """The same without noise, scaling and shift."""
        return replace(self, noise_std=0.0, scaling=1.0, shift=0.0)

    def unscaled(self) -> Self:
        """The same without scaling and shift, which change answers and are no errors."""
        return replace(self, scaling=1.0, shift=0.0)

    def factor_bits(self, batch: int) -> int:
        """log2 of the scale at which factors are encoded for ``batch`` records; 0 without any."""
        if self.scaling == 1:
            return 0
        return FACTOR_BITS if batch == 1 else BATCH_FACTOR_BITS

    def reply_range(self, output_range: float) -> float:
        """The largest value of a reply whose outputs reach ``output_range``."""
        return output_range * self.scaling + self.shift + NOISE_REACH * self.noise_std

    def room_bits(self, output_range: float, batch: int) -> float:
        """Bits of the first prime that noise, scaling and shift take."""
        return math.log2(self.reply_range(output_range) / output_range) + self.factor_bits(batch)

    @property
    def perturbation(self) -> str:
        """Noise, scaling and shift in words; empty for none."""
        words = []
        if self.scaling > 1:
            words.append(f"factors of 1/{self.scaling:g} … {self.scaling:g}")
        if self.shift:
            words.append(f"shifts up to ±{self.shift:g}")
        if self.noise_std:
            words.append(f"noise of std {self.noise_std:g}")
        return ", ".join(words)

    def __str__(self) -> str:
        words = ["real part"] if self.real_part else []
        if self.flooding_std:
            words.append(f"flooding of std {self.flooding_std:.2g}")
        if self.perturbs:
            words.append(self.perturbation)
        return ", ".join(words) or "as they are"


def flooding_bits(n: int, std: float, scale: float) -> int:
    """b of the formula above; 0 where not even single units fit below ``std``."""
    return max(0, math.floor(math.log2(std * scale * math.sqrt(3) / math.sqrt(n / 2))))


def flooding_std(n: int, bits: int, scale: float) -> float:
    """What coefficients uniform on [−2^bits, 2^bits) add to the real part of a slot."""
    return 2.0**bits / math.sqrt(3) * math.sqrt(n / 2) / scale


def noise_bound(period: int, std: float, scale: float) -> int:
    """The bound of uniform coefficients whose slots, repeated with ``period``, have this std."""
    return max(1, round(std * scale * math.sqrt(3) / math.sqrt(period)))
