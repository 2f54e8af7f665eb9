"""One suite for every backend: what Backend promises holds on plain, simulated, cost, seal, native.

A harness says how to encrypt and decrypt on a backend and how exact its values are; the cost
backend has no values, so only its levels, scales and refusals are checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from he_infer.errors import BackendError
from he_infer.keys.secret import SecretKeys
from he_infer.runtime.backends.cost import CostBackend
from he_infer.runtime.backends.plain import PlainBackend
from he_infer.runtime.backends.seal import SealBackend
from he_infer.runtime.costs import CostModel
from tests.runtime.backends.harness import (
    HARNESSES,
    PARAMS,
    SCALE,
    STEPS,
    TOP,
    Harness,
    Slots,
    vector,
)


def test_fresh_ciphertexts_are_at_the_top(harness: Harness) -> None:
    x = vector(0)
    harness.check(harness.encrypt(x), x, level=TOP, scale=SCALE)
    assert harness.backend.params == PARAMS


def test_add(harness: Harness) -> None:
    x, y = vector(0), vector(1)
    result = harness.backend.add(harness.encrypt(x), harness.encrypt(y))
    harness.check(result, x + y, level=TOP, scale=SCALE)


def test_add_a_ciphertext_to_itself(harness: Harness) -> None:
    x = vector(0)
    c = harness.encrypt(x)
    harness.check(harness.backend.add(c, c), 2 * x, level=TOP, scale=SCALE)


@pytest.mark.parametrize("scalar", [True, False])
def test_add_plain(harness: Harness, scalar: bool) -> None:
    x = vector(0)
    y: Slots | float = -0.75 if scalar else vector(1)
    p = harness.backend.encode(y, level=TOP, scale=SCALE)
    result = harness.backend.add_plain(harness.encrypt(x), p)
    harness.check(result, x + y, level=TOP, scale=SCALE)


@pytest.mark.parametrize("scalar", [True, False])
def test_multiply_plain_and_rescale(harness: Harness, scalar: bool) -> None:
    backend, x = harness.backend, vector(0)
    y: Slots | float = 0.3 if scalar else vector(1)
    prime = float(PARAMS.primes[TOP])
    product = backend.multiply_plain(harness.encrypt(x), backend.encode(y, level=TOP, scale=prime))
    assert backend.level(product) == TOP
    assert backend.scale(product) == pytest.approx(SCALE * prime)
    # Encoded at the prime that the rescale drops, so the scale comes back exactly.
    harness.check(backend.rescale(product), x * y, level=TOP - 1, scale=SCALE)


@pytest.mark.parametrize("value", [0.0, 1e-14])
def test_weights_that_round_to_nothing_are_multiplied_by(harness: Harness, value: float) -> None:
    backend = harness.backend
    for weight in (value, np.full(PARAMS.slots, value)):
        p = backend.encode(weight, level=TOP, scale=float(PARAMS.primes[TOP]))
        result = backend.rescale(backend.multiply_plain(harness.encrypt(vector(0)), p))
        harness.check(result, np.zeros(PARAMS.slots), level=TOP - 1, scale=SCALE)


def test_multiply_relinearize_rescale(harness: Harness) -> None:
    backend, x, y = harness.backend, vector(0), vector(1)
    product = backend.multiply(harness.encrypt(x), harness.encrypt(y))
    harness.check(product, x * y, level=TOP, scale=SCALE**2)
    linear = backend.relinearize(product)
    harness.check(linear, x * y, level=TOP, scale=SCALE**2)
    scale = SCALE**2 / PARAMS.primes[TOP]
    harness.check(backend.rescale(linear), x * y, level=TOP - 1, scale=scale)


def test_squares_use_one_operand_twice(harness: Harness) -> None:
    backend, x = harness.backend, vector(0)
    c = harness.encrypt(x)
    result = backend.rescale(backend.relinearize(backend.multiply(c, c)))
    harness.check(result, x * x, level=TOP - 1, scale=SCALE**2 / PARAMS.primes[TOP])


def test_a_product_of_size_three_may_be_rescaled_first(harness: Harness) -> None:
    backend, x = harness.backend, vector(0)
    c = harness.encrypt(x)
    result = backend.relinearize(backend.rescale(backend.multiply(c, c)))
    harness.check(result, x * x, level=TOP - 1, scale=SCALE**2 / PARAMS.primes[TOP])


@pytest.mark.parametrize("step", STEPS)
def test_rotate_moves_slots_to_the_left(harness: Harness, step: int) -> None:
    x = vector(0)
    result = harness.backend.rotate(harness.encrypt(x), step)
    harness.check(result, np.roll(x, -step), level=TOP, scale=SCALE)


@pytest.mark.parametrize("level", range(TOP + 1))
def test_drop_to_keeps_value_and_scale(harness: Harness, level: int) -> None:
    x = vector(0)
    low = harness.backend.drop_to(harness.encrypt(x), level)
    harness.check(low, x, level=level, scale=SCALE)
    harness.check(harness.backend.rotate(low, 1), np.roll(x, -1), level=level, scale=SCALE)


@pytest.mark.parametrize("level", range(TOP + 1))
def test_zero_is_nothing_and_adds_nothing(harness: Harness, level: int) -> None:
    backend, x = harness.backend, vector(0)
    zero = backend.encrypt_zero(level=level, scale=SCALE)
    harness.check(zero, 0 * x, level=level, scale=SCALE)
    low = backend.drop_to(harness.encrypt(x), level)
    harness.check(backend.add(low, zero), x, level=level, scale=SCALE)


@pytest.mark.parametrize("level", range(TOP + 1))
def test_flooding_is_as_wide_as_its_bound(harness: Harness, level: int) -> None:
    backend, bound = harness.backend, 1 << 30
    zero = backend.encrypt_zero(level=level, scale=SCALE)
    flooded = backend.flood(zero, bound, period=PARAMS.slots)
    if harness.values_within is not None:
        wanted = bound / np.sqrt(3) * np.sqrt(PARAMS.n / 2) / SCALE
        if isinstance(backend, PlainBackend):
            wanted = 0.0
        assert np.std(harness.decrypt(flooded)) == pytest.approx(wanted, rel=0.1, abs=1e-12)


def test_operands_are_left_alone(harness: Harness) -> None:
    backend, x, y = harness.backend, vector(0), vector(1)
    a, b = harness.encrypt(x), harness.encrypt(y)
    p = backend.encode(y, level=TOP, scale=SCALE)
    product = backend.multiply(a, b)
    operations: list[Callable[[], Any]] = [
        lambda: backend.add(a, b),
        lambda: backend.add_plain(a, p),
        lambda: backend.multiply_plain(a, p),
        lambda: backend.multiply(a, a),
        lambda: backend.rotate(a, 1),
        lambda: backend.rescale(product),
        lambda: backend.relinearize(product),
        lambda: backend.drop_to(a, 0),
        lambda: backend.drop_to(a, TOP),
        lambda: backend.flood(a, 4, period=PARAMS.slots),
    ]
    for operation in operations:
        operation()
    harness.check(a, x, level=TOP, scale=SCALE)
    harness.check(b, y, level=TOP, scale=SCALE)
    harness.check(product, x * y, level=TOP, scale=SCALE**2)


# -- refusals ----------------------------------------------------------------------------


def test_operands_at_different_levels(harness: Harness) -> None:
    backend = harness.backend
    high, low = harness.encrypt(vector(0)), backend.drop_to(harness.encrypt(vector(1)), 0)
    p = backend.encode(vector(2), level=1, scale=SCALE)
    operations: list[Callable[[], Any]] = [
        lambda: backend.add(high, low),
        lambda: backend.multiply(high, low),
        lambda: backend.add_plain(high, p),
        lambda: backend.multiply_plain(high, p),
    ]
    for operation in operations:
        with pytest.raises(BackendError, match="level"):
            operation()


def test_additions_at_different_scales(harness: Harness) -> None:
    backend, a = harness.backend, harness.encrypt(vector(0))
    product = backend.multiply_plain(a, backend.encode(1.0, level=TOP, scale=2.0**10))
    with pytest.raises(BackendError, match="scale"):
        backend.add(a, product)
    with pytest.raises(BackendError, match="scale"):
        backend.add_plain(a, backend.encode(vector(1), level=TOP, scale=SCALE * 1.001))


def test_rescaling_at_level_zero(harness: Harness) -> None:
    bottom = harness.backend.drop_to(harness.encrypt(vector(0)), 0)
    with pytest.raises(BackendError, match="level 0"):
        harness.backend.rescale(bottom)


@pytest.mark.parametrize("target", [-1, TOP + 1])
def test_dropping_to_a_level_that_is_not_below(harness: Harness, target: int) -> None:
    with pytest.raises(BackendError, match="drop"):
        harness.backend.drop_to(harness.encrypt(vector(0)), target)


def test_levels_do_not_come_back(harness: Harness) -> None:
    bottom = harness.backend.drop_to(harness.encrypt(vector(0)), 0)
    with pytest.raises(BackendError, match="drop"):
        harness.backend.drop_to(bottom, 1)


def test_a_rotation_without_its_key(harness: Harness) -> None:
    with pytest.raises(BackendError, match="no Galois key for rotation step 2"):
        harness.backend.rotate(harness.encrypt(vector(0)), 2)


@pytest.mark.parametrize("step", [0, -1, PARAMS.slots])
def test_rotations_out_of_range(harness: Harness, step: int) -> None:
    with pytest.raises(BackendError, match="rotation step"):
        harness.backend.rotate(harness.encrypt(vector(0)), step)


def test_products_of_size_three_must_be_relinearised(harness: Harness) -> None:
    backend, a = harness.backend, harness.encrypt(vector(0))
    product = backend.multiply(a, a)
    lowered = backend.multiply(a, a)
    with pytest.raises(BackendError, match="relinearise before rotating"):
        backend.rotate(product, 1)
    with pytest.raises(BackendError, match="relinearise before multiplying"):
        backend.multiply(product, lowered)
    with pytest.raises(BackendError, match="only a product"):
        backend.relinearize(a)


def test_encoding_takes_one_value_per_slot(harness: Harness) -> None:
    with pytest.raises(BackendError, match="encode takes 4096 values"):
        harness.backend.encode(np.zeros(3), level=TOP, scale=SCALE)


# -- what only one backend has ------------------------------------------------------------


def test_seal_needs_keys_and_values_that_fit() -> None:
    backend = SealBackend(PARAMS)
    with pytest.raises(BackendError, match="exceeds the modulus"):
        backend.encode(2.0**40, level=0, scale=SCALE)
    secret = SecretKeys.generate(PARAMS)
    c = backend.import_ciphertext(secret.encrypt(np.ones((1, PARAMS.slots)), SCALE)[0])
    operations: list[Callable[[], Any]] = [
        lambda: backend.rotate(c, 1),
        lambda: backend.relinearize(backend.multiply(c, c)),
        lambda: backend.encrypt_zero(level=0, scale=SCALE),
    ]
    for operation in operations:
        with pytest.raises(BackendError, match="needs evaluation keys"):
            operation()


@pytest.mark.parametrize("name", ["seal", "native-scalar"])
def test_no_zero_is_like_another(name: str) -> None:
    backend = HARNESSES[name]().backend
    first, second = (
        backend.export_ciphertext(backend.encrypt_zero(level=TOP, scale=SCALE)) for _ in range(2)
    )
    assert (first.residues != second.residues).mean() > 0.99


def test_costs_are_counted() -> None:
    backend = CostBackend(PARAMS, CostModel())
    c = backend.fresh(scale=SCALE)
    backend.rescale(backend.relinearize(backend.multiply(c, c)))
    backend.rotate(c, 3)
    assert backend.counts == {"multiply": 1, "relinearize": 1, "rescale": 1, "rotate": 1}
    assert backend.key_switches == 2
    assert backend.milliseconds > 2 * CostModel().key_switch_ms(PARAMS.n, TOP)
