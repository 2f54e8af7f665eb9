"""Parameters: the same primes as SEAL's, the security table enforced, hostile JSON refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenseal import sealapi

from he_infer.errors import ParameterError
from he_infer.params import MAX_LOG_QP, CKKSParams, choose_primes, is_prime

SMALL = CKKSParams.from_bits(8192, [46, 38, 38], special_bits=50)


def seal_primes(n: int, bits: list[int]) -> list[int]:
    return [int(modulus.value()) for modulus in sealapi.CoeffModulus.Create(n, bits)]


@given(
    n=st.sampled_from(sorted(MAX_LOG_QP)),
    bits=st.lists(st.integers(min_value=25, max_value=60), min_size=2, max_size=9),
)
def test_the_primes_are_those_that_seal_chooses(n: int, bits: list[int]) -> None:
    assert choose_primes(n, bits) == seal_primes(n, bits)


def test_repeated_sizes_take_distinct_primes_in_seals_order() -> None:
    bits = [31, *[26] * 6, 31]
    assert choose_primes(8192, bits) == seal_primes(8192, bits)
    assert len(set(choose_primes(8192, bits))) == len(bits)


def test_sizes_without_enough_primes_are_refused() -> None:
    with pytest.raises(ParameterError, match="17-bit primes exist"):
        choose_primes(32768, [17] * 4)


@pytest.mark.parametrize("n", sorted(MAX_LOG_QP))
def test_the_security_table_is_met_to_the_bit(n: int) -> None:
    most = MAX_LOG_QP[n][128]
    count = -(-most // 60)
    bits = [most // count + (i < most % count) for i in range(count)]
    assert sum(bits) == most
    exact = CKKSParams.from_bits(n, bits[:-1], special_bits=bits[-1])
    assert exact.security_bits == 128
    bits[0] += 1
    with pytest.raises(ParameterError, match="128-bit security"):
        CKKSParams.from_bits(n, bits[:-1], special_bits=bits[-1])


@pytest.mark.parametrize(("width", "security"), [(28, 256), (36, 192), (53, 128)])
def test_narrow_moduli_are_credited_with_more_security(width: int, security: int) -> None:
    assert CKKSParams.from_bits(4096, [width], special_bits=width).security_bits == security


def test_levels_and_slots_follow_from_the_primes() -> None:
    assert (SMALL.slots, SMALL.max_level) == (4096, 2)
    assert SMALL.log_qp == pytest.approx(46 + 38 + 38 + 50, abs=0.01)


def test_moduli_must_be_distinct_ntt_friendly_primes_of_a_fair_size() -> None:
    first, second, third = SMALL.primes
    good: dict[str, Any] = {"n": 8192, "primes": [first, second], "special_prime": third}
    assert CKKSParams.from_json(good).max_level == 1
    not_ntt = next(q for q in range(2**30, 2**31) if is_prime(q) and q % 16384 != 1)
    composite = next(c for c in range(16384 * 99991 + 1, 2**40, 16384) if not is_prime(c))
    for primes, message in [
        ([first, first], "not distinct"),
        ([first, third], "not distinct"),
        ([first, composite], "not a prime"),
        ([first, not_ntt], "not a prime"),
        ([first, 65537 * 65537 * 65537 * 65537], "outside"),
        ([first, 2**61 - 1], "outside"),
        ([first, 3], "outside"),
        ([first, 0], "outside"),
        ([first, -second], "not a prime"),
        ([], "no data primes"),
    ]:
        with pytest.raises(ParameterError, match=message):
            CKKSParams.from_json({**good, "primes": primes})


@pytest.mark.parametrize("n", [0, -8192, 2048, 65536, 8191, 10**30])
def test_other_ring_degrees_are_refused(n: int) -> None:
    with pytest.raises(ParameterError, match="ring degree"):
        CKKSParams.from_json({**SMALL.to_json(), "n": n})


def test_json_round_trip_keeps_the_digest() -> None:
    again = CKKSParams.from_json(SMALL.to_json())
    assert again == SMALL and again.digest == SMALL.digest
    other = CKKSParams.from_bits(8192, [46, 38, 37], special_bits=50)
    assert other.digest != SMALL.digest


HOSTILE: list[object] = [
    None,
    [],
    "text",
    7,
    {},
    {"n": 8192},
    {**SMALL.to_json(), "n": 8192.0},
    {**SMALL.to_json(), "n": True},
    {**SMALL.to_json(), "n": [8192]},
    {**SMALL.to_json(), "primes": None},
    {**SMALL.to_json(), "primes": "12"},
    {**SMALL.to_json(), "primes": {"0": 1}},
    {**SMALL.to_json(), "primes": [SMALL.primes[0], "x"]},
    {**SMALL.to_json(), "primes": [float("nan")]},
    {**SMALL.to_json(), "primes": [SMALL.primes[0]] * 100_000},
    {**SMALL.to_json(), "primes": [1 << 100_000]},
    {**SMALL.to_json(), "special_prime": None},
    {**SMALL.to_json(), "special_prime": SMALL.primes[0]},
]


@pytest.mark.parametrize("index", range(len(HOSTILE)))
def test_hostile_json_is_a_parameter_error(index: int) -> None:
    data: Any = copy.copy(HOSTILE[index])
    with pytest.raises(ParameterError):
        CKKSParams.from_json(data)


@given(st.integers(min_value=-5, max_value=5000))
def test_primality_agrees_with_trial_division(value: int) -> None:
    assert is_prime(value) == (value > 1 and all(value % d for d in range(2, int(value**0.5) + 1)))


def test_strong_pseudoprimes_are_told_from_primes() -> None:
    # The smallest composites that pass the bases 2, 2-3, …, 2-23: Jaeschke 1993, OEIS A014233.
    for composite in (2047, 1373653, 25326001, 3215031751, 3474749660383, 3825123056546413051):
        assert not is_prime(composite)
    assert is_prime(2**61 - 1)
