"""What travels between client and server: ciphertexts and evaluation keys as plain arrays.

Residues are ``uint64`` in the NTT order that SEAL uses; row ``i`` is modulo the i-th prime.
A *seeded* object carries its uniformly random half as the 64-byte seed it was expanded from
(BLAKE2Xb, as SEAL does it), which halves what is sent. None of these types has a place for a
secret key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from he_infer.errors import WireError
from he_infer.params import CKKSParams

SEED_BYTES: Final = 64
MAX_SIZE: Final = 3  # polynomials in a ciphertext; a product before relinearisation has three


def key_moduli(params: CKKSParams) -> tuple[int, ...]:
    """The moduli of keys: all data primes, then the special prime."""
    return (*params.primes, params.special_prime)


def cut_moduli(params: CKKSParams, level: int) -> tuple[int, ...]:
    """The moduli of keys that are used up to ``level``; raises WireError for no such level."""
    return (*level_moduli(params, level), params.special_prime)


def public_moduli(params: CKKSParams, level: int) -> tuple[int, ...]:
    """The moduli of a public key for replies at ``level``; raises WireError for no such level."""
    level_moduli(params, level)
    return key_moduli(params)[: level + 2]


def level_moduli(params: CKKSParams, level: int) -> tuple[int, ...]:
    """The moduli of a ciphertext at ``level``; raises WireError if there is no such level."""
    if not 0 <= level <= params.max_level:
        raise WireError(f"level {level} is outside 0…{params.max_level}")
    return params.primes[: level + 1]


def check_residues(rows: NDArray[np.uint64], moduli: tuple[int, ...], n: int) -> None:
    """Raise WireError unless ``rows`` is uint64 (…, len(moduli), n) with every residue below q."""
    if rows.dtype != np.uint64 or rows.shape[-2:] != (len(moduli), n):
        raise WireError(
            f"expected uint64 residues (…, {len(moduli)}, {n}), got {rows.dtype} {rows.shape}"
        )
    if rows.size == 0:
        raise WireError("an object without polynomials")
    largest = rows.max(axis=-1)
    if bool((largest >= np.array(moduli, dtype=np.uint64)).any()):
        raise WireError("a residue is not below its prime: the bytes are corrupted or forged")


def check_scale(scale: float) -> None:
    """Raise WireError unless ``scale`` is a finite number of at least one."""
    if not (math.isfinite(scale) and scale >= 1.0):
        raise WireError("the scale is not a finite number of at least one")


def _check_array(rows: NDArray[np.uint64], dimensions: int, what: str) -> None:
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint64 or rows.ndim != dimensions:
        raise WireError(f"{what} must be a uint64 array of {dimensions} dimensions")


def _check_seed(seed: bytes) -> None:
    if not isinstance(seed, bytes) or len(seed) != SEED_BYTES:
        raise WireError(f"a seed has exactly {SEED_BYTES} bytes")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ciphertext:
    """A ciphertext: ``residues`` uint64 (size, level + 1, n) and its ``scale``."""

    residues: NDArray[np.uint64]
    scale: float

    def __post_init__(self) -> None:
        _check_array(self.residues, 3, "residues")
        check_scale(self.scale)
        if not 2 <= self.size <= MAX_SIZE:
            raise WireError(f"a ciphertext has 2 or {MAX_SIZE} polynomials, got {self.size}")

    @property
    def size(self) -> int:
        return int(self.residues.shape[0])

    @property
    def level(self) -> int:
        return int(self.residues.shape[1]) - 1

    def check(self, params: CKKSParams) -> None:
        """Raise WireError unless every residue is valid under ``params``."""
        check_residues(self.residues, level_moduli(params, self.level), params.n)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeededCiphertext:
    """A fresh symmetric ciphertext: ``c0`` uint64 (level + 1, n); c1 is expanded from ``seed``."""

    c0: NDArray[np.uint64]
    seed: bytes
    scale: float

    def __post_init__(self) -> None:
        _check_array(self.c0, 2, "c0")
        _check_seed(self.seed)
        check_scale(self.scale)

    @property
    def level(self) -> int:
        return int(self.c0.shape[0]) - 1

    def check(self, params: CKKSParams) -> None:
        """Raise WireError unless every residue is valid under ``params``."""
        check_residues(self.c0, level_moduli(params, self.level), params.n)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeededPublicKey:
    """An encryption of zero to re-randomise replies at level l: ``b`` uint64 (l + 2, n), a seed.

    Rows are modulo the first l + 2 of q_0 … q_L, P: fresh encryptions of zero are made one
    prime higher and divided by it, which leaves a rounding of their noise. The seed expands to
    residues modulo all primes.
    """

    b: NDArray[np.uint64]
    seed: bytes

    def __post_init__(self) -> None:
        _check_array(self.b, 2, "b")
        _check_seed(self.seed)

    def check(self, params: CKKSParams) -> None:
        """Raise WireError unless every residue is valid under ``params``."""
        check_residues(self.b, public_moduli(params, self.level), params.n)

    @property
    def level(self) -> int:
        return int(self.b.shape[0]) - 2

    def cut(self, level: int) -> SeededPublicKey:
        """The same key for use up to ``level``."""
        if not 0 <= level <= self.level:
            raise WireError(f"a public key for level {self.level} cannot be cut to {level}")
        return SeededPublicKey(b=self.b[: level + 2], seed=self.seed)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeededKeySwitchKey:
    """One key-switching key for levels up to l: ``b`` uint64 (l + 1, l + 2, n), a seed per digit.

    Rows are modulo q_0 … q_l and P; each seed expands to residues modulo all primes.
    """

    b: NDArray[np.uint64]
    seeds: tuple[bytes, ...]

    def __post_init__(self) -> None:
        _check_array(self.b, 3, "b")
        if len(self.seeds) != self.b.shape[0]:
            raise WireError(f"{self.b.shape[0]} digits but {len(self.seeds)} seeds")
        for seed in self.seeds:
            _check_seed(seed)

    @property
    def level(self) -> int:
        return int(self.b.shape[0]) - 1

    def cut(self, level: int) -> SeededKeySwitchKey:
        """The same key for use up to ``level``."""
        if not 0 <= level <= self.level:
            raise WireError(f"a key for level {self.level} cannot be cut to {level}")
        rows = [*range(level + 1), -1]
        b = np.ascontiguousarray(self.b[: level + 1, rows])
        return SeededKeySwitchKey(b=b, seeds=self.seeds[: level + 1])

    def check(self, params: CKKSParams) -> None:
        """Raise WireError unless shape and every residue are valid under ``params``."""
        check_residues(self.b, cut_moduli(params, self.level), params.n)
