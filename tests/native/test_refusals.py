"""Malformed arrays and mismatched objects are refused before any arithmetic, with a type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from he_infer import native
from he_infer.errors import BackendError, MismatchError
from he_infer.keys.secret import SecretKeys
from he_infer.params import CKKSParams
from he_infer.runtime.backends.native import Native, NativeBackend
from he_infer.wire import Ciphertext, KeyLevels, SeededCiphertext
from he_infer.wire.types import key_moduli

if native.core is None:
    pytest.skip("the extension was not built", allow_module_level=True)

CORE: Any = native.core
PARAMS = CKKSParams.from_bits(4096, [36, 30], special_bits=38)
ENGINE = CORE.Engine(4096, key_moduli(PARAMS))
N = PARAMS.n


def residues(size: int, rows: int, n: int = N, value: int = 1) -> np.ndarray[Any, Any]:
    return np.full((size, rows, n), value, dtype=np.uint64)


def small(level: int) -> Any:
    return ENGINE.ciphertext(residues(2, level + 1))


def plain(level: int, extended: bool = False) -> Any:
    return ENGINE.plaintext(np.ones(N, dtype=np.int64), level, extended)


def key(element: int, level: int) -> Any:
    seeds = [bytes(64)] * (level + 1)
    return ENGINE.switch_key(element, residues(level + 1, level + 2), seeds)


def transform(level: int, *products: tuple[int, int, Any], folds: tuple[int, ...] = ()) -> Any:
    return CORE.Transform(level, [[(list(products), 1)]], list(folds))


BAD: dict[str, Callable[[], object]] = {
    "one polynomial": lambda: ENGINE.ciphertext(residues(1, 2)),
    "four polynomials": lambda: ENGINE.ciphertext(residues(4, 2)),
    "no rows": lambda: ENGINE.ciphertext(residues(2, 0)),
    "a row too many": lambda: ENGINE.ciphertext(residues(2, 3)),
    "short rows": lambda: ENGINE.ciphertext(residues(2, 2, N - 1)),
    "a residue that is the prime": lambda: ENGINE.ciphertext(
        residues(2, 1, value=PARAMS.primes[0])
    ),
    "a residue of all ones": lambda: ENGINE.ciphertext(residues(2, 1, value=2**64 - 1)),
    "signed residues": lambda: ENGINE.ciphertext(residues(2, 2).astype(np.int64)),
    "floats": lambda: ENGINE.ciphertext(residues(2, 2).astype(np.float64)),
    "two dimensions": lambda: ENGINE.ciphertext(residues(2, 2)[0]),
    "a short seed": lambda: ENGINE.seeded(residues(1, 2)[0], bytes(63)),
    "seeded, out of range": lambda: ENGINE.seeded(
        residues(1, 1, value=PARAMS.primes[0])[0], bytes(64)
    ),
    "seeded, no rows": lambda: ENGINE.seeded(residues(1, 0)[0], bytes(64)),
    "a key with a seed too few": lambda: ENGINE.switch_key(3, residues(2, 3), [bytes(64)]),
    "a key of another shape": lambda: ENGINE.switch_key(3, residues(2, 2), [bytes(64)] * 2),
    "an even element": lambda: ENGINE.switch_key(4, residues(1, 2), [bytes(64)]),
    "an element beyond 2N": lambda: ENGINE.switch_key(2 * N + 1, residues(1, 2), [bytes(64)]),
    "a key out of range": lambda: ENGINE.switch_key(
        3, residues(1, 2, value=PARAMS.primes[0]), [bytes(64)]
    ),
    "a plaintext at no level": lambda: plain(2),
    "a short plaintext": lambda: ENGINE.plaintext(np.ones(N - 1, dtype=np.int64), 0, False),
    "adding across levels": lambda: ENGINE.add(small(0), small(1)),
    "a plaintext of another level": lambda: ENGINE.multiply_plain(small(1), plain(0)),
    "adding a plaintext of another level": lambda: ENGINE.add_plain(small(0), plain(1)),
    "a product of a product": lambda: ENGINE.multiply(
        ENGINE.multiply(small(0), small(0)), small(0)
    ),
    "rescaling at level 0": lambda: ENGINE.rescale(small(0)),
    "dropping upwards": lambda: ENGINE.drop(small(0), 1),
    "dropping below 0": lambda: ENGINE.drop(small(0), -1),
    "relinearising two polynomials": lambda: ENGINE.relinearize(small(0), key(1, 1)),
    "relinearising with a Galois key": lambda: ENGINE.relinearize(
        ENGINE.multiply(small(0), small(0)), key(3, 1)
    ),
    "rotating with a relinearisation key": lambda: ENGINE.rotate(small(0), key(1, 1)),
    "rotating above the key's level": lambda: ENGINE.rotate(small(1), key(3, 0)),
    "a transform at level 0": lambda: transform(0, (0, 1, plain(0))),
    "a transform without products": lambda: transform(1),
    "a transform of nothing": lambda: CORE.Transform(1, [], []),
    "a negative source": lambda: transform(1, (-1, 1, plain(1))),
    "weights of another level": lambda: transform(1, (0, 1, plain(0))),
    "rotations without extended weights": lambda: transform(1, (0, 3, plain(1))),
    "too few sources": lambda: ENGINE.transform(transform(1, (1, 1, plain(1))), [small(1)], {}),
    "a source at another level": lambda: ENGINE.transform(
        transform(1, (0, 1, plain(1))), [small(0)], {}
    ),
    "a missing key": lambda: ENGINE.transform(transform(1, (0, 3, plain(1, True))), [small(1)], {}),
    "a key under another name": lambda: ENGINE.transform(
        transform(1, (0, 3, plain(1, True))), [small(1)], {3: key(9, 1)}
    ),
    "a fold above its key's level": lambda: ENGINE.transform(
        transform(1, (0, 1, plain(1)), folds=(3,)), [small(1)], {3: key(3, 0)}
    ),
    "sums of nothing": lambda: ENGINE.combine(
        np.zeros(2, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64), []
    ),
    "sums of missing sources": lambda: ENGINE.combine(
        np.array([0, 1]), np.array([1], np.int32), np.array([1]), [small(1)]
    ),
    "rows that do not ascend": lambda: ENGINE.combine(
        np.array([0, 2, 1]), np.array([0], np.int32), np.array([1]), [small(1)]
    ),
    "a public key of another level": lambda: ENGINE.encrypt_zero(
        0, residues(2, 3), np.zeros((3, N), np.int8)
    ),
    "zero at a level that is not there": lambda: ENGINE.encrypt_zero(
        9, residues(2, 11), np.zeros((3, N), np.int8)
    ),
    "small polynomials of another length": lambda: ENGINE.encrypt_zero(
        0, residues(2, 2), np.zeros((3, N - 1), np.int8)
    ),
    "integers of another length": lambda: ENGINE.add_integers(small(0), np.zeros(N - 1, np.int64)),
    "integers above a prime": lambda: ENGINE.add_integers(
        small(0), np.full(N, PARAMS.primes[0], np.int64)
    ),
    "integers below minus a prime": lambda: ENGINE.add_integers(
        small(0), np.full(N, np.iinfo(np.int64).min)
    ),
    "transforming for no prime": lambda: ENGINE.transform_rows(residues(1, 1)[0], 3, True),
    "a ring of another form": lambda: CORE.Engine(4095, key_moduli(PARAMS)),
    "a modulus that is no NTT prime": lambda: CORE.Engine(4096, [PARAMS.primes[0], 12345]),
    "a single modulus": lambda: CORE.Engine(4096, [PARAMS.primes[0]]),
    "an unknown path": lambda: CORE.Engine(4096, key_moduli(PARAMS), "gpu"),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_arguments(name: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        BAD[name]()


def test_objects_of_another_ring() -> None:
    other = CORE.Engine(8192, key_moduli(CKKSParams.from_bits(8192, [36, 30], special_bits=38)))
    foreign = other.ciphertext(residues(2, 2, 8192))
    calls: tuple[Callable[[], object], ...] = (
        lambda: ENGINE.add(foreign, foreign),
        lambda: ENGINE.multiply(foreign, foreign),
        lambda: ENGINE.rescale(foreign),
        lambda: ENGINE.multiply_plain(foreign, plain(1)),
        lambda: ENGINE.rotate(foreign, key(3, 1)),
        lambda: other.rotate(foreign, key(3, 1)),
    )
    for call in calls:
        with pytest.raises(ValueError, match="another"):
            call()


def test_the_backend_gives_errors_their_type() -> None:
    backend = NativeBackend(PARAMS)
    bad = Ciphertext(residues=residues(2, 2, value=2**63), scale=2.0**20)
    with pytest.raises(BackendError, match="not below its prime"):
        backend.import_ciphertext(bad)
    seeded = SeededCiphertext(c0=residues(1, 3)[0], seed=bytes(64), scale=2.0**20)
    with pytest.raises(BackendError, match="no level has 3 rows"):
        backend.import_ciphertext(seeded)
    c = backend.import_ciphertext(Ciphertext(residues=residues(2, 2), scale=2.0**20))
    with pytest.raises(BackendError, match="with_keys"):
        backend.rotate(c, 1)
    for value in (float("nan"), float("inf"), 1e30):
        with pytest.raises(BackendError, match="cannot encode"):
            backend.encode(np.full(PARAMS.slots, value), level=1, scale=2.0**30)
    with pytest.raises(BackendError, match="no path"):
        NativeBackend(PARAMS, path="gpu")
    with pytest.raises(BackendError, match="threads"):
        NativeBackend(PARAMS, threads=0)


def test_keys_are_used_up_to_their_level_and_no_further() -> None:
    secret = SecretKeys.generate(PARAMS)
    levels = KeyLevels(public=0, relin=None, rotations=((1, 0),))
    bare = NativeBackend(PARAMS)
    backend = bare.with_keys(bare.load_keys(secret.evaluation_keys(levels)))
    slots = np.linspace(-1, 1, PARAMS.slots)
    c = backend.import_ciphertext(secret.encrypt(slots[None], 2.0**25)[0])
    low = backend.drop_to(c, 0)

    def decrypted(a: Native) -> Any:
        return secret.decrypt(backend.export_ciphertext(a)).real

    assert np.abs(decrypted(backend.rotate(low, 1)) - np.roll(slots, -1)).max() < 1e-2
    assert np.abs(decrypted(backend.encrypt_zero(level=0, scale=2.0**25))).max() < 1e-3
    with pytest.raises(BackendError, match="cut below level 1"):
        backend.rotate(c, 1)
    with pytest.raises(BackendError, match="cut below level 1"):
        backend.encrypt_zero(level=1, scale=2.0**25)
    with pytest.raises(BackendError, match="no relinearisation key"):
        backend.relinearize(backend.multiply(low, low))


def test_keys_of_other_parameters() -> None:
    other = CKKSParams.from_bits(4096, [36, 28], special_bits=38)
    with pytest.raises(MismatchError):
        NativeBackend(PARAMS).load_keys(SecretKeys.generate(other).evaluation_keys([1]))
