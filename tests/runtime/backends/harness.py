"""How each backend encrypts and decrypts in tests, and how exact its values are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from he_infer import native
from he_infer.keys.secret import SecretKeys
from he_infer.params import CKKSParams
from he_infer.runtime.backends.cost import CostBackend
from he_infer.runtime.backends.native import NativeBackend
from he_infer.runtime.backends.plain import PlainBackend
from he_infer.runtime.backends.seal import SealBackend
from he_infer.runtime.backends.simulated import SimulatedBackend
from he_infer.runtime.costs import CostModel

PARAMS = CKKSParams.from_bits(8192, [46, 38, 38], special_bits=50)
SCALE = 2.0**38
STEPS = (1, 5, 4095)
TOP = PARAMS.max_level
Slots = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Harness:
    """``values_within``: largest error of one operation on values of order one; None: no values.

    Key switching at 2^38 leaves about 2^-22 in a slot; a few operations add a few of those. What
    is off by most is a product that is rescaled before it is relinearised: a rounding times the
    square of the secret, whose largest of 4,096 slots is 2^-17 with most keys, beyond 10^-5 with
    one in 150, and beyond 2^-15 with none of 10^8.
    """

    backend: Any
    encrypt: Callable[[Slots], Any]
    decrypt: Callable[[Any], Slots]
    values_within: float | None

    def check(self, ciphertext: Any, expected: Slots, *, level: int, scale: float) -> None:
        assert self.backend.level(ciphertext) == level
        assert self.backend.scale(ciphertext) == pytest.approx(scale, rel=1e-12)
        if self.values_within is not None:
            error = np.abs(self.decrypt(ciphertext) - expected).max()
            assert error <= self.values_within


def plain() -> Harness:
    backend = PlainBackend(PARAMS, steps=STEPS)
    return Harness(
        backend=backend,
        encrypt=lambda x: backend.encrypt(x, scale=SCALE),
        decrypt=lambda c: backend.decrypt(c).real,
        values_within=1e-12,
    )


def simulated() -> Harness:
    backend = SimulatedBackend(PARAMS, np.random.default_rng(0), steps=STEPS)
    return Harness(
        backend=backend,
        encrypt=lambda x: backend.encrypt(x, scale=SCALE),
        decrypt=lambda c: backend.decrypt(c).real,
        values_within=2.0**-15,
    )


def cost() -> Harness:
    backend = CostBackend(PARAMS, CostModel(), steps=STEPS)
    return Harness(
        backend=backend,
        encrypt=lambda x: backend.fresh(scale=SCALE),
        decrypt=lambda c: np.zeros(0),
        values_within=None,
    )


def seal() -> Harness:
    secret = SecretKeys.generate(PARAMS)
    bare = SealBackend(PARAMS)
    backend = bare.with_keys(bare.load_keys(secret.evaluation_keys(STEPS)))
    return Harness(
        backend=backend,
        encrypt=lambda x: backend.import_ciphertext(secret.encrypt(x[None], SCALE)[0]),
        decrypt=lambda c: secret.decrypt(backend.export_ciphertext(c)).real,
        values_within=2.0**-15,
    )


def native_on(path: str, threads: int) -> Callable[[], Harness]:
    def make() -> Harness:
        if path not in native.paths():
            pytest.skip(f"this machine or build has no {path} path")
        secret = SecretKeys.generate(PARAMS)
        bare = NativeBackend(PARAMS, path=path, threads=threads)
        backend = bare.with_keys(bare.load_keys(secret.evaluation_keys(STEPS)))
        return Harness(
            backend=backend,
            encrypt=lambda x: backend.import_ciphertext(secret.encrypt(x[None], SCALE)[0]),
            decrypt=lambda c: secret.decrypt(backend.export_ciphertext(c)).real,
            values_within=2.0**-15,
        )

    return make


HARNESSES: dict[str, Callable[[], Harness]] = {
    "plain": plain,
    "simulated": simulated,
    "cost": cost,
    "seal": seal,
    "native-scalar": native_on("scalar", 1),
    "native-avx2": native_on("avx2", 1),
    "native-ifma": native_on("ifma", 1),
    "native-threads": native_on("scalar", 3),
}


def vector(seed: int) -> Slots:
    return np.random.default_rng(seed).uniform(-1, 1, PARAMS.slots)
