"""Each attack on channels where it must work, and on channels where it must not."""

from __future__ import annotations

import numpy as np
import pytest

from attacks.ciphertext.complex_slots import complex_gain
from attacks.ciphertext.layouts import layout_gain, range_reach
from attacks.ciphertext.query_recovery import features_of, guess_classes
from attacks.ciphertext.slots import bias_recovery, slot_rank
from attacks.ciphertext.timing import compare_times, welch
from attacks.ciphertext.weight_noise import noise_ratio
from tests.attacks.ciphertext.fake_channel import FEATURES, OUTPUTS, SLOTS, FakeChannel, made

RNG = np.random.default_rng


def partial_sums(slots: np.ndarray) -> np.ndarray:
    """What a product leaves in slots that nobody folded or masked."""
    mixed = np.roll(slots, 3) * np.linspace(0.5, 1.5, SLOTS)
    mixed[:OUTPUTS] = 0
    return np.asarray(mixed)


def test_rank_outside_the_reply_stands_out() -> None:
    clean = slot_rank(made(), queries=30, rng=RNG(0))
    assert (clean.all_slots, clean.logits) == (OUTPUTS, OUTPUTS)
    leaky = slot_rank(made(spill=partial_sums), queries=30, rng=RNG(0))
    assert leaky.logits == OUTPUTS and leaky.all_slots >= 28


def test_noise_alone_has_no_rank() -> None:
    silent = made(noise=0.5)
    silent.weights[:] = 0
    assert slot_rank(silent, queries=40, rng=RNG(0)).all_slots == 0


def test_a_bias_is_read_where_it_stands_and_only_there() -> None:
    bias = made().bias

    def repeated(_: np.ndarray) -> np.ndarray:
        return bias[np.arange(SLOTS) % OUTPUTS]

    found = bias_recovery(made(spill=repeated), bias, replies=1, rng=RNG(0))
    assert found.recovered and found.error < 1e-2 and found.p_value < 0.1
    nothing = bias_recovery(made(), bias, replies=500, rng=RNG(0))
    assert not nothing.recovered and nothing.p_value > 0.01


def test_replicas_of_logits_are_no_places_to_read_from() -> None:
    channel = made()

    def copies(slots: np.ndarray) -> np.ndarray:
        logits = channel.weights @ ((slots[:FEATURES] + slots[FEATURES : 2 * FEATURES]) / 2)
        return np.tile(logits + channel.bias, SLOTS // OUTPUTS)

    found = bias_recovery(made(spill=copies), channel.bias, replies=4, rng=RNG(0))
    assert (found.places, found.recovered) == (0, False)
    assert slot_rank(made(spill=copies), queries=20, rng=RNG(0)).all_slots == OUTPUTS


def test_imaginary_parts_count_as_numbers() -> None:
    assert complex_gain(made(), queries=6, rng=RNG(0)).numbers == 1
    assert complex_gain(made(real=False), queries=6, rng=RNG(0)).numbers == 2


def test_slots_that_an_adversary_sets_at_will_are_counted() -> None:
    gain = layout_gain(made(), rng=RNG(0))
    assert gain.features == FEATURES and gain.answers == OUTPUTS
    assert 0 < gain.free < 3 * 2 * FEATURES


def test_the_range_that_is_answered_is_found() -> None:
    class Overflowing(FakeChannel):
        def ask(self, slots: np.ndarray) -> np.ndarray:
            reply = super().ask(slots)
            return np.asarray((reply.real + 32) % 64 - 32, dtype=np.complex128)

    plain = made()
    channel = Overflowing(weights=plain.weights, bias=plain.bias)

    def exact(slots: np.ndarray) -> np.ndarray:
        return np.asarray(plain.weights @ slots[0, :FEATURES].real + plain.bias)

    assert 2 <= range_reach(channel, exact, rng=RNG(0)).reach <= 64
    assert range_reach(plain, exact, rng=RNG(0)).reach == 2.0**11


def test_noise_tells_weights_apart_unless_it_is_flooded() -> None:
    query = np.zeros((1, SLOTS), dtype=np.complex128)
    quiet, loud = made(noise=1e-4), made(noise=2e-4)
    found = noise_ratio(quiet, loud, query=query, replies=40)
    assert found.differs and found.ratio == pytest.approx(0.25, rel=0.1)
    same = noise_ratio(made(), made(rng=RNG(7)), query=query, replies=40)
    assert same.low < 1.0 < same.high


def test_times_that_differ_are_told_apart() -> None:
    rng = RNG(3)

    def timer(mean: float) -> float:
        return float(rng.normal(mean, 0.1))

    slower = compare_times(lambda: timer(1.0), lambda: timer(1.05), samples=2000, rng=RNG(0))
    assert slower.differs and slower.t < 0
    same = compare_times(lambda: timer(1.0), lambda: timer(1.0), samples=2000, rng=RNG(0))
    assert not same.differs
    assert welch(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0])) == 0.0


def test_the_class_of_a_query_is_guessed_from_telltale_bytes_only() -> None:
    rng = RNG(5)
    classes = np.tile(np.arange(4), 50)
    random_bytes = [rng.bytes(4000) for _ in classes]
    blind = guess_classes(features_of(random_bytes, [1.0] * 200), classes, seed=0)
    assert not blind.better_than_chance
    longer = [b"x" * (100 + int(c)) for c in classes]
    told = guess_classes(features_of(longer, [1.0] * 200), classes, seed=0)
    assert told.accuracy.value == 1.0
