"""CKKS parameters: frozen, checked against the security tables, with primes chosen like SEAL's.

A ciphertext at *level* ``l`` lives modulo ``primes[0] · … · primes[l]``; a fresh one is at
``max_level``. Each multiplication is followed by a rescale that drops the highest prime, so
the multiplicative depth a parameter set offers equals ``max_level``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from he_infer.errors import ParameterError

# Bossuat et al., "Security Guidelines for Implementing Homomorphic Encryption",
# ePrint 2024/463: largest log2(QP) for a ternary secret, classical adversaries.
MAX_LOG_QP: Final[Mapping[int, Mapping[int, int]]] = {
    4096: {128: 106, 192: 73, 256: 56},
    8192: {128: 214, 192: 147, 256: 114},
    16384: {128: 430, 192: 297, 256: 230},
    32768: {128: 868, 192: 597, 256: 462},
}
MIN_PRIME_BITS: Final = 17
MAX_PRIME_BITS: Final = 60  # SEAL's limit for a user-chosen coefficient modulus


@dataclass(frozen=True, slots=True, kw_only=True)
class CKKSParams:
    """A CKKS parameter set: ring degree, data primes, the key-switching prime.

    ``n``: ring degree N, a power of two from 4096 to 32768; there are N/2 slots.
    ``primes``: data primes q_0 … q_L; q_L is dropped by the first rescale.
    ``special_prime``: P, used in key switching only.
    Raises ParameterError below 128-bit security, or for moduli that are not distinct
    NTT-friendly primes.
    """

    n: int
    primes: tuple[int, ...]
    special_prime: int

    def __post_init__(self) -> None:
        if self.n not in MAX_LOG_QP:
            raise ParameterError(f"ring degree {self.n} is not one of {sorted(MAX_LOG_QP)}")
        if not self.primes:
            raise ParameterError("no data primes: give at least one")
        moduli = (*self.primes, self.special_prime)
        if len(set(moduli)) != len(moduli):
            raise ParameterError("the primes are not distinct")
        for q in moduli:
            bits = q.bit_length()
            if not MIN_PRIME_BITS <= bits <= MAX_PRIME_BITS:
                raise ParameterError(
                    f"a {bits}-bit prime is outside {MIN_PRIME_BITS}…{MAX_PRIME_BITS} bits"
                )
            if q % (2 * self.n) != 1 or not is_prime(q):
                raise ParameterError(f"{q} is not a prime congruent to 1 mod {2 * self.n}")
        if self.security_bits == 0:
            raise ParameterError(
                f"log2(QP) = {self.log_qp:.1f} exceeds {MAX_LOG_QP[self.n][128]} bits, the most "
                f"that N = {self.n} carries at 128-bit security: use fewer or smaller primes, "
                "or a larger N"
            )

    @classmethod
    def from_bits(cls, n: int, bits: Sequence[int], *, special_bits: int) -> CKKSParams:
        """Choose the largest suitable primes: ``bits[i]`` is the size of q_i."""
        *primes, special = choose_primes(n, [*bits, special_bits])
        return cls(n=n, primes=tuple(primes), special_prime=special)

    @property
    def slots(self) -> int:
        return self.n // 2

    @property
    def max_level(self) -> int:
        return len(self.primes) - 1

    @property
    def log_qp(self) -> float:
        """log2 of the product of all moduli, the key-switching prime included."""
        return sum(math.log2(q) for q in (*self.primes, self.special_prime))

    @property
    def security_bits(self) -> int:
        """The highest of 128, 192, 256 that the table grants; 0 below 128."""
        # Total width in whole bits, as the published table counts it.
        total = math.ceil(self.log_qp - 1e-3)
        return max((s for s, most in MAX_LOG_QP[self.n].items() if total <= most), default=0)

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON form, in hexadecimal."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {"n": self.n, "primes": list(self.primes), "special_prime": self.special_prime}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CKKSParams:
        """Read what :meth:`to_json` wrote; raises ParameterError for anything else."""
        try:
            n, primes, special = data["n"], data["primes"], data["special_prime"]
        except (KeyError, TypeError) as error:
            raise ParameterError("CKKS parameters need n, primes and special_prime") from error
        integers = [n, special, *primes] if isinstance(primes, list) else [None]
        if len(integers) > 64 or not all(type(value) is int for value in integers):
            raise ParameterError("CKKS parameters must be integers, with at most 62 primes")
        return cls(n=n, primes=tuple(primes), special_prime=special)


def choose_primes(n: int, bits: Sequence[int]) -> list[int]:
    """The largest distinct primes ≡ 1 mod 2n of the given bit sizes, in the order asked for.

    Raises ParameterError if a size has too few such primes.
    """
    pools: dict[int, list[int]] = {}
    for size in set(bits):
        wanted = list(bits).count(size)
        found: list[int] = []
        candidate = ((1 << size) - 1) // (2 * n) * (2 * n) + 1
        while len(found) < wanted and candidate > 1 << (size - 1):
            if is_prime(candidate):
                found.append(candidate)
            candidate -= 2 * n
        if len(found) < wanted:
            raise ParameterError(f"only {len(found)} of {wanted} {size}-bit primes exist, N = {n}")
        pools[size] = found
    return [pools[size].pop() for size in bits]


def is_prime(value: int) -> bool:
    """Deterministic Miller–Rabin for values below 2^64 (bases of Sorenson and Webster, 2015)."""
    if value < 2:
        return False
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    for p in bases:
        if value % p == 0:
            return value == p
    odd, twos = value - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in bases:
        x = pow(base, odd, value)
        if x in (1, value - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % value
            if x == value - 1:
                break
        else:
            return False
    return True
