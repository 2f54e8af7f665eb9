"""Li and Micciancio's key recovery against real keys, and against released answers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from attacks.ciphertext import slots
from attacks.ciphertext.key_recovery import from_complex, from_real
from attacks.ciphertext.query_recovery import features_of, guess_classes
from attacks.ciphertext.suite import ATTACKS, Effort, run_suite
from attacks.ciphertext.transform import backward, forward, inverse, multiply
from attacks.oracles.channels import PlanBench
from he_infer import zoo
from he_infer.compiler.pipeline import compile
from he_infer.plan.privacy import FunctionPrivacy


@pytest.fixture(scope="module")
def bench() -> PlanBench:
    model, sample = zoo.load("digits-mlp"), zoo.sample("digits-mlp", 256)
    test = zoo.test_set("digits-mlp")
    return PlanBench(
        compile(model, sample, name="digits"),
        compile(model, sample, name="digits", privacy=FunctionPrivacy.unchecked()),
        records=np.asarray(test.inputs(), dtype=np.float64)[:200].reshape(200, 64),
        classes=np.asarray(test.labels, dtype=np.int64)[:200],
    )


# Judged by p-values of 0.1 %, which a service that tells nothing falls below as often;
# each has a test of its own below, with a bar that it does not.
BY_CHANCE = {"bias-recovery", "query-recovery"}


def prime(bits: int, n: int) -> int:
    from he_infer.params import CKKSParams

    return CKKSParams.from_bits(n, [bits], special_bits=bits + 1).primes[0]


@pytest.mark.parametrize("bits", [30, 40, 49, 59])
def test_the_transform_multiplies_polynomials(bits: int) -> None:
    q, n = prime(bits, 8192), 8192
    rng = np.random.default_rng(bits)
    a, b = (rng.integers(0, q, n, dtype=np.uint64) for _ in range(2))
    assert np.array_equal(backward(forward(a, q), q), a)
    by_x = np.zeros(n, dtype=np.uint64)
    by_x[1] = 1
    shifted = backward(multiply(forward(a, q), forward(by_x, q), q), q)
    assert np.array_equal(shifted[1:], a[:-1]) and int(shifted[0]) == (q - int(a[-1])) % q
    assert np.array_equal(multiply(b, inverse(b, q), q), np.ones(n, dtype=np.uint64))
    for x, y in ((q - 1, q - 1), (1, q - 1), (0, q - 1)):
        found = multiply(np.array([x], dtype=np.uint64), np.array([y], dtype=np.uint64), q)
        assert int(found[0]) == x * y % q


def test_one_complex_or_two_real_decryptions_give_the_key_away(bench: PlanBench) -> None:
    seen = bench.seen(3)
    keys = [from_complex(s) for s in seen]
    assert all(k.is_key for k in keys)
    for first, second in pairwise(keys):
        assert np.array_equal(first.coefficients, second.coefficients)
    real = [replace(s, slots=s.slots.real.astype(np.complex128)) for s in seen[:2]]
    assert np.array_equal(from_real(real).coefficients, keys[0].coefficients)


def test_released_answers_do_not(bench: PlanBench) -> None:
    seen = bench.seen(1)[0]
    kept = from_complex(replace(seen, slots=bench.released(seen)))
    assert not kept.is_key and kept.ternary < 0.01


@pytest.mark.slow
def test_every_check_holds_and_every_control_breaks(bench: PlanBench) -> None:
    # Fewer replies tell the undefended networks' noise apart with most keys, but not with all.
    effort = Effort(replies=30, queries=24, noise_replies=100, timings=400, observed=120)
    checks = {check.name: check for check in run_suite(bench, effort, seed=0)}
    assert len(checks) == len(ATTACKS)
    judged = [c for c in checks.values() if c.name != "timing"]  # not on a shared machine
    assert [c.name for c in judged if not c.holds and c.name not in BY_CHANCE] == []
    assert [c.name for c in judged if c.control_broken is False] == []
    assert {"holds", "control", "defended"} <= checks["timing"].to_json().keys()


@pytest.mark.slow
def test_silent_slots_tell_no_bias(bench: PlanBench, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of a bias that shows, however faintly, hardly any other order fits as well as its own. Were
    # there none, one or none of 400,000 orders would fit better with probability 5e-6.
    monkeypatch.setattr(slots, "_PERMUTATIONS", 400_000)
    found = slots.bias_recovery(
        bench.defended, bench.bias, replies=30, rng=np.random.default_rng(0)
    )
    assert found.places > 0 and not found.recovered and found.p_value > 5e-6


@pytest.mark.slow
def test_envelopes_and_times_tell_no_class(bench: PlanBench) -> None:
    envelopes, times, classes = bench.observed(200)
    guess = guess_classes(features_of(envelopes, times), classes, seed=0)
    # Guesses of neighbours in a fold depend on each other: their count spreads by a ninth more
    # than a binomial one does, so that this is five of its standard deviations and more.
    spread = (guess.chance * (1 - guess.chance) / guess.queries) ** 0.5
    assert guess.accuracy.value < guess.chance + 6 * spread
