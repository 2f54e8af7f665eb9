"""Arrays and SEAL objects: the same bytes, the same decryption, keys that work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tenseal import sealapi

from he_infer.errors import ParameterError, WireError
from he_infer.keys import seal_bytes
from he_infer.keys.evaluation import CONJUGATION_STEP, galois_element
from he_infer.params import CKKSParams
from he_infer.wire import Ciphertext, SeededCiphertext

SCALE = 2.0**30
# Fresh noise at this scale is some thousand units of 2^-30. Key switching adds more in the slot
# whose root is next to 1, where digits that are not centred show: the error there has a length
# with mean square 3.6e-4², which exceeds 1e-3 once in 3,000 rotations and this once in 10^13.
TOLERANCE = 2e-3


@dataclass(frozen=True)
class Seal:
    """SEAL's own objects for one small parameter set."""

    params: CKKSParams
    context: Any
    generator: Any
    encryptor: Any
    decryptor: Any
    encoder: Any

    def values(self) -> NDArray[np.float64]:
        return np.random.default_rng(3).uniform(-1, 1, self.params.slots)

    def encrypt(self, level: int | None = None) -> Any:
        chosen = self.params.max_level if level is None else level
        plaintext = sealapi.Plaintext()
        identity = seal_bytes.parms_id(self.context, chosen)
        self.encoder.encode(self.values().tolist(), identity, SCALE, plaintext)
        return self.encryptor.encrypt_symmetric(plaintext)

    def decrypt(self, ciphertext: Any) -> NDArray[np.complex128]:
        plaintext = sealapi.Plaintext()
        self.decryptor.decrypt(ciphertext, plaintext)
        return np.array(self.encoder.decode_complex(plaintext))


@pytest.fixture(scope="module")
def seal() -> Seal:
    params = CKKSParams.from_bits(8192, [45, 30, 30], special_bits=46)
    context = seal_bytes.seal_context(params)
    generator = sealapi.KeyGenerator(context)
    secret = generator.secret_key()
    return Seal(
        params=params,
        context=context,
        generator=generator,
        encryptor=sealapi.Encryptor(context, secret),
        decryptor=sealapi.Decryptor(context, secret),
        encoder=sealapi.CKKSEncoder(context),
    )


@pytest.mark.parametrize("level", [0, 1, 2])
def test_ciphertext_round_trip_decrypts_alike(seal: Seal, level: int) -> None:
    seeded = seal_bytes.dump_seeded_ciphertext(seal.params, seal.encrypt(level))
    assert seeded.level == level and seeded.scale == SCALE
    expanded = seal_bytes.load_ciphertext(seal.context, seal.params, seeded)
    full = seal_bytes.dump_ciphertext(seal.params, expanded)
    assert full.residues.shape == (2, level + 1, seal.params.n)
    np.testing.assert_array_equal(full.residues[0], seeded.c0)
    again = seal_bytes.load_ciphertext(seal.context, seal.params, full)
    np.testing.assert_array_equal(seal.decrypt(again), seal.decrypt(expanded))
    assert np.abs(seal.decrypt(again) - seal.values()).max() < TOLERANCE


def test_rebuilt_bytes_are_what_seal_writes(seal: Seal) -> None:
    identity = seal_bytes.parms_id(seal.context, seal.params.max_level)
    fresh = seal.encrypt()
    seeded = seal_bytes.dump_seeded_ciphertext(seal.params, fresh)
    parts = seal_bytes._ciphertext_parts(identity, seeded.c0, seeded.scale, seeded.seed)
    assert b"".join(parts) == seal_bytes.saved_bytes(fresh)

    expanded = seal_bytes.load_ciphertext(seal.context, seal.params, seeded)
    full = seal_bytes.dump_ciphertext(seal.params, expanded)
    parts = seal_bytes._ciphertext_parts(identity, full.residues, full.scale, None)
    assert b"".join(parts) == seal_bytes.saved_bytes(expanded)

    made = seal.generator.create_galois_keys([3, 9])
    keys = seal_bytes.dump_key_switch_keys(seal.params, made)
    assert set(keys) == {1, 4}
    parts = seal_bytes._key_parts(seal.context, seal.params, keys, seal.params.n)
    assert b"".join(parts) == seal_bytes.saved_bytes(made)


def test_loaded_galois_keys_rotate_left_and_conjugate(seal: Seal) -> None:
    steps = [1, 5, -3, CONJUGATION_STEP]
    keys = {}
    for step in steps:
        element = galois_element(step, seal.params.n)
        made = seal.generator.create_galois_keys([element])
        keys[step] = seal_bytes.dump_key_switch_keys(seal.params, made)[(element - 1) // 2]
    galois = seal_bytes.load_galois_keys(seal.context, seal.params, keys)
    evaluator = sealapi.Evaluator(seal.context)
    seeded = seal_bytes.dump_seeded_ciphertext(seal.params, seal.encrypt())
    for step in (1, 5, -3):
        ciphertext = seal_bytes.load_ciphertext(seal.context, seal.params, seeded)
        evaluator.rotate_vector_inplace(ciphertext, step, galois)
        error = np.abs(seal.decrypt(ciphertext) - np.roll(seal.values(), -step)).max()
        assert error < TOLERANCE
    ciphertext = seal_bytes.load_ciphertext(seal.context, seal.params, seeded)
    evaluator.complex_conjugate_inplace(ciphertext, galois)
    assert np.abs(seal.decrypt(ciphertext) - seal.values()).max() < TOLERANCE
    assert not galois.has_key(galois_element(2, seal.params.n))


def test_loaded_relinearisation_key_and_public_key_work(seal: Seal) -> None:
    made = seal_bytes.dump_key_switch_keys(seal.params, seal.generator.create_relin_keys())
    assert set(made) == {0}
    relin = seal_bytes.load_relin_keys(seal.context, seal.params, made[0])
    evaluator = sealapi.Evaluator(seal.context)
    seeded = seal_bytes.dump_seeded_ciphertext(seal.params, seal.encrypt())
    ciphertext = seal_bytes.load_ciphertext(seal.context, seal.params, seeded)
    evaluator.square_inplace(ciphertext)
    product = seal_bytes.dump_ciphertext(seal.params, ciphertext)
    assert product.size == 3
    ciphertext = seal_bytes.load_ciphertext(seal.context, seal.params, product)
    evaluator.relinearize_inplace(ciphertext, relin)
    evaluator.rescale_to_next_inplace(ciphertext)
    assert seal_bytes.dump_ciphertext(seal.params, ciphertext).size == 2
    assert np.abs(seal.decrypt(ciphertext) - seal.values() ** 2).max() < TOLERANCE

    zero = seal.encryptor.encrypt_zero_symmetric(seal.context.key_parms_id())
    key = seal_bytes.dump_public_key(seal.params, zero)
    public = seal_bytes.load_public_key(seal.context, seal.params, key)
    plaintext = sealapi.Plaintext()
    seal.encoder.encode(seal.values().tolist(), SCALE, plaintext)
    target = sealapi.Ciphertext()
    sealapi.Encryptor(seal.context, public).encrypt(plaintext, target)
    assert np.abs(seal.decrypt(target) - seal.values()).max() < TOLERANCE


def test_secret_key_round_trip(seal: Seal) -> None:
    secret = seal.generator.secret_key()
    residues = seal_bytes.dump_secret_key(seal.params, secret)
    again = seal_bytes.load_secret_key(seal.context, seal.params, residues)
    assert seal_bytes.saved_bytes(again) == seal_bytes.saved_bytes(secret)


def test_residues_out_of_range_never_reach_seal(seal: Seal) -> None:
    rows = np.zeros((2, 2, seal.params.n), dtype=np.uint64)
    rows[1, 1, 7] = seal.params.primes[1]
    with pytest.raises(WireError, match="not below its prime"):
        seal_bytes.load_ciphertext(
            seal.context, seal.params, Ciphertext(residues=rows, scale=SCALE)
        )
    short = np.zeros((2, seal.params.n // 2), dtype=np.uint64)
    with pytest.raises(WireError, match="expected uint64 residues"):
        seal_bytes.load_ciphertext(
            seal.context, seal.params, SeededCiphertext(c0=short, seed=bytes(64), scale=SCALE)
        )


def test_galois_elements() -> None:
    assert galois_element(1, 4096) == 3
    assert galois_element(-1, 4096) == pow(3, 2047, 8192)
    assert galois_element(0, 4096) == 8191
    for step in (2048, -2048):
        with pytest.raises(ParameterError, match="outside"):
            galois_element(step, 4096)
