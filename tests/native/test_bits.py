"""The extension against SEAL, bit for bit, on every arithmetic path, level and ring degree."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from he_infer import native
from he_infer.keys.secret import SecretKeys
from he_infer.params import CKKSParams
from he_infer.runtime.backends.native import Native, NativeBackend
from he_infer.runtime.backends.seal import SealBackend
from he_infer.runtime.encoding import encode_slots
from he_infer.wire import Ciphertext

if native.core is None:
    pytest.skip("the extension was not built", allow_module_level=True)

# Primes beyond 50 bits run the scalar path on every machine, mixed with narrower ones.
CHAINS = {
    "4096": (4096, [36, 30], 38),
    "8192": (8192, [33, 50, 50, 23], 50),
    "8192, wide": (8192, [60, 45], 60),
    "16384": (16384, [40, 50, 28, 50, 30], 50),
    "32768": (32768, [50, 50, 49, 48], 50),
}
SLOW = {"16384", "32768"}
STEPS = (1, 7, -3)
PATHS = native.paths()


@dataclass(frozen=True)
class Pair:
    """SEAL and every path of ours with the same keys."""

    params: CKKSParams
    seal: Any
    ours: dict[str, NativeBackend]


@lru_cache(maxsize=1)
def pair(chain: str) -> Pair:
    n, bits, special = CHAINS[chain]
    params = CKKSParams.from_bits(n, bits, special_bits=special)
    keys = SecretKeys.generate(params).evaluation_keys(STEPS)
    bare = SealBackend(params)
    backends = {path: NativeBackend(params, path=path) for path in PATHS}
    ours = {path: b.with_keys(b.load_keys(keys)) for path, b in backends.items()}
    return Pair(params, bare.with_keys(bare.load_keys(keys)), ours)


def random_ciphertext(params: CKKSParams, level: int, size: int, seed: int) -> Ciphertext:
    """Uniform residues, with the extremes 0 and q − 1 among them."""
    rng = np.random.default_rng(seed)
    rows = []
    for q in params.primes[: level + 1]:
        row = rng.integers(0, q, size=(size, params.n), dtype=np.uint64)
        row[:, rng.integers(0, params.n, size=16)] = 0
        row[:, rng.integers(0, params.n, size=16)] = q - 1
        rows.append(row)
    # Large enough to rescale a square, small enough for SEAL to allow it.
    bits = sum(q.bit_length() for q in params.primes[: level + 1])
    return Ciphertext(residues=np.stack(rows, axis=1), scale=2.0 ** min(bits // 2 - 8, 60))


def assert_same(pair: Pair, expected: Any, results: dict[str, Native]) -> None:
    residues = pair.seal.export_ciphertext(expected).residues
    for path, result in results.items():
        np.testing.assert_array_equal(result.value.residues, residues, err_msg=path)


chains = pytest.mark.parametrize(
    "chain",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CHAINS],
)
CASES = settings(max_examples=8, deadline=None)


@chains
@CASES
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_unary_operations(chain: str, data: st.DataObject, seed: int) -> None:
    both = pair(chain)
    level = data.draw(st.integers(0, both.params.max_level), label="level")
    wire = random_ciphertext(both.params, level, 2, seed)
    a = both.seal.import_ciphertext(wire)
    ours = {path: b.import_ciphertext(wire) for path, b in both.ours.items()}
    step = data.draw(st.sampled_from([s % both.params.slots for s in STEPS]), label="step")
    rotated = {path: b.rotate(ours[path], step) for path, b in both.ours.items()}
    assert_same(both, both.seal.rotate(a, step), rotated)
    squared = {path: b.multiply(ours[path], ours[path]) for path, b in both.ours.items()}
    square = both.seal.multiply(a, a)
    assert_same(both, square, squared)
    linear = {path: b.relinearize(squared[path]) for path, b in both.ours.items()}
    assert_same(both, both.seal.relinearize(square), linear)
    if level:
        lower = {path: b.rescale(squared[path]) for path, b in both.ours.items()}
        assert_same(both, both.seal.rescale(square), lower)
        target = data.draw(st.integers(0, level), label="target")
        small = Ciphertext(residues=wire.residues, scale=2.0**4)
        dropped = {
            path: b.drop_to(b.import_ciphertext(small), target) for path, b in both.ours.items()
        }
        assert_same(both, both.seal.drop_to(both.seal.import_ciphertext(small), target), dropped)


@chains
@CASES
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_binary_operations(chain: str, data: st.DataObject, seed: int) -> None:
    both = pair(chain)
    level = data.draw(st.integers(0, both.params.max_level), label="level")
    first = random_ciphertext(both.params, level, data.draw(st.sampled_from([2, 3])), seed)
    second = random_ciphertext(both.params, level, 2, seed + 1)
    a, b = both.seal.import_ciphertext(first), both.seal.import_ciphertext(second)
    ours = {
        path: (o.import_ciphertext(first), o.import_ciphertext(second))
        for path, o in both.ours.items()
    }
    sums = {path: o.add(*ours[path]) for path, o in both.ours.items()}
    assert_same(both, both.seal.add(a, b), sums)
    if first.size == 2:
        products = {path: o.multiply(*ours[path]) for path, o in both.ours.items()}
        assert_same(both, both.seal.multiply(a, b), products)
    # Whole numbers in every slot: the encodings are the same on both sides.
    value = float(data.draw(st.integers(-1000, 1000).filter(bool), label="value"))
    p = both.seal.encode(value, level=level, scale=2.0**4)
    plains = {path: o.encode(value, level=level, scale=2.0**4) for path, o in both.ours.items()}
    times = {path: o.multiply_plain(ours[path][0], plains[path]) for path, o in both.ours.items()}
    assert_same(both, both.seal.multiply_plain(a, p), times)


@chains
def test_seeds_expand_to_what_seal_expands(chain: str) -> None:
    both = pair(chain)
    secret = SecretKeys.generate(both.params)
    for seed in range(3):
        slots = np.random.default_rng(seed).uniform(-1, 1, (1, both.params.slots))
        (wire,) = secret.encrypt(slots, 2.0**20)
        expanded = {path: b.import_ciphertext(wire) for path, b in both.ours.items()}
        assert_same(both, both.seal.import_ciphertext(wire), expanded)


@pytest.mark.parametrize("period", [1, 2, 64, 4096])
def test_plaintexts_are_within_one_of_seals(period: int) -> None:
    """Both round the same numbers, up to the last bit of their Fourier transforms."""
    both = pair("8192")
    rng = np.random.default_rng(period)
    slots = np.tile(rng.uniform(-1, 1, period), both.params.slots // period)
    scale = 2.0**23
    # (1, 1): a product shows the plaintext itself.
    zero_free = Ciphertext(residues=np.ones((2, 4, both.params.n), dtype=np.uint64), scale=1.0)
    plain = both.seal.encode(slots, level=3, scale=scale)
    seals = both.seal.multiply_plain(both.seal.import_ciphertext(zero_free), plain)
    expected = both.seal.export_ciphertext(seals).residues[0]
    for path, backend in both.ours.items():
        ours = backend.encode(slots, level=3, scale=scale)
        runs = {1: 13, 2: 11, 64: 6, 4096: 0}
        assert ours.value.run == runs[period]
        got = backend.multiply_plain(backend.import_ciphertext(zero_free), ours).value.residues[0]
        coefficients = []
        for rows in (got, expected):
            row = np.ascontiguousarray(rows[:1]).copy()
            backend._engine.transform_rows(row, 0, False)
            coefficients.append(row[0].astype(np.int64))
        q = both.params.primes[0]
        difference = (coefficients[0] - coefficients[1]) % q
        assert np.isin(difference, [0, 1, q - 1]).all(), path
        direct = encode_slots(slots, both.params.n, scale) % q
        np.testing.assert_array_equal(coefficients[0], direct, err_msg=path)


@pytest.mark.parametrize("n", [1024, 2048, 4096, 8192])
@pytest.mark.parametrize("path", PATHS)
def test_transforms_multiply_polynomials(n: int, path: str) -> None:
    """A product in NTT form is the negacyclic product, computed here with whole numbers."""
    prime = next(q for q in range(2**30 // (2 * n) * 2 * n + 1, 2**31, 2 * n) if is_prime(q))
    other = next(q for q in range(prime + 2 * n, 2**32, 2 * n) if is_prime(q))
    engine = native.core.Engine(n, [prime, other], path)  # type: ignore[union-attr]
    rng = np.random.default_rng(n)
    a = np.zeros((2, n), dtype=np.uint64)
    a[0] = rng.integers(0, prime, n, dtype=np.uint64)
    a[1, [0, 1, n - 1]] = [3, 1, prime - 2]
    rows = a.copy()
    engine.transform_rows(rows, 0, True)
    product = np.array(
        [int(x) * int(y) % prime for x, y in zip(*rows, strict=True)], dtype=np.uint64
    )[None]
    engine.transform_rows(product, 0, False)
    x = a[0].astype(object)
    # 3 + X − 2·X^(n−1), with X^n = −1
    shifted = np.concatenate([[-x[-1]], x[:-1]])
    back = np.concatenate([x[1:], [-x[0]]])
    expected = (3 * x + shifted + 2 * back) % prime
    np.testing.assert_array_equal(product[0].astype(object), expected)
    engine.transform_rows(rows, 0, False)
    np.testing.assert_array_equal(rows, a)


def is_prime(q: int) -> bool:
    from he_infer.params import is_prime as test

    return test(q)
