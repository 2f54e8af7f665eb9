"""SecretKeys and EvaluationKeys: what they do, and what they refuse."""

from __future__ import annotations

import copy
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from tenseal import sealapi

from he_infer.errors import InputError, KeyFileError, MismatchError, ParameterError, WireError
from he_infer.keys import seal_bytes
from he_infer.keys.evaluation import EvaluationKeys, galois_element
from he_infer.keys.file import Argon2idCost
from he_infer.keys.secret import SecretKeys
from he_infer.params import CKKSParams
from he_infer.wire import Ciphertext
from he_infer.wire.key_levels import KeyLevels

PARAMS = CKKSParams.from_bits(4096, [36, 30], special_bits=37)
SCALE = 2.0**26
TOLERANCE = 1e-2  # of a rotation at a scale this small; fresh ciphertexts are far better
CHEAP = Argon2idCost(memory_kib=64, passes=1, lanes=1)


@pytest.fixture(scope="module")
def secret() -> SecretKeys:
    return SecretKeys.generate(PARAMS)


@pytest.fixture(scope="module")
def evaluation(secret: SecretKeys) -> EvaluationKeys:
    return secret.evaluation_keys([4, 1, -2])


def _expanded(secret_context: object, seeded: object) -> Ciphertext:
    loaded = seal_bytes.load_ciphertext(secret_context, PARAMS, seeded)  # type: ignore[arg-type]
    return seal_bytes.dump_ciphertext(PARAMS, loaded)


def test_encrypt_then_decrypt(secret: SecretKeys) -> None:
    values = np.random.default_rng(0).uniform(-1, 1, (3, PARAMS.slots))
    context = seal_bytes.seal_context(PARAMS)
    fresh = secret.encrypt(values, SCALE)
    assert len({ciphertext.seed for ciphertext in fresh}) == 3
    for row, ciphertext in zip(values, fresh, strict=True):
        assert ciphertext.level == PARAMS.max_level and ciphertext.scale == SCALE
        slots = secret.decrypt(_expanded(context, ciphertext))
        assert slots.shape == (PARAMS.slots,) and slots.dtype == np.complex128
        assert np.abs(slots - row).max() < 1e-4
        other = SecretKeys.generate(PARAMS).decrypt(_expanded(context, ciphertext))
        assert np.abs(other - row).max() > 1.0


def test_complex_values_come_back_whole(secret: SecretKeys) -> None:
    parts = np.random.default_rng(0).uniform(-1, 1, (2, 1, PARAMS.slots))
    (ciphertext,) = secret.encrypt_complex(parts[0] + 1j * parts[1], SCALE)
    slots = secret.decrypt(_expanded(seal_bytes.seal_context(PARAMS), ciphertext))
    assert np.abs(slots - (parts[0] + 1j * parts[1])).max() < 1e-4


def test_exactly_the_steps_asked_for(secret: SecretKeys, evaluation: EvaluationKeys) -> None:
    assert evaluation.steps == (1, 4, PARAMS.slots - 2)
    context = seal_bytes.seal_context(PARAMS)
    galois = seal_bytes.load_galois_keys(context, PARAMS, evaluation.galois)
    present = [k for k in range(1, 2 * PARAMS.n, 2) if galois.has_key(k)]
    wanted = {galois_element(step, PARAMS.n) for step in (1, 4, -2)}
    assert set(present) == wanted
    values = np.random.default_rng(1).uniform(-1, 1, (1, PARAMS.slots))
    ciphertext = seal_bytes.load_ciphertext(context, PARAMS, secret.encrypt(values, SCALE)[0])
    sealapi.Evaluator(context).rotate_vector_inplace(ciphertext, -2, galois)
    slots = secret.decrypt(seal_bytes.dump_ciphertext(PARAMS, ciphertext))
    assert np.abs(slots - np.roll(values[0], 2)).max() < TOLERANCE


def test_evaluation_keys_round_trip(evaluation: EvaluationKeys) -> None:
    data = evaluation.to_bytes()
    again = EvaluationKeys.from_bytes(
        data, params=PARAMS, levels=KeyLevels.full(PARAMS, [-2, 4, 1, 1])
    )
    assert again.to_bytes() == data
    assert again.digest == evaluation.digest == hashlib.sha256(data).hexdigest()
    assert again.steps == evaluation.steps
    with pytest.raises(MismatchError, match="rotation steps"):
        EvaluationKeys.from_bytes(data, params=PARAMS, levels=KeyLevels.full(PARAMS, [1, 4]))
    with pytest.raises(WireError):
        EvaluationKeys.from_bytes(
            data[:-1], params=PARAMS, levels=KeyLevels.full(PARAMS, [1, 4, -2])
        )


def test_progress_counts_every_key(secret: SecretKeys) -> None:
    seen: list[tuple[int, int]] = []
    secret.evaluation_keys([1, 2], progress=lambda stage, done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_bad_steps_and_values_are_refused(secret: SecretKeys) -> None:
    with pytest.raises(ParameterError, match="outside"):
        secret.evaluation_keys([PARAMS.slots])
    with pytest.raises(InputError, match="shape"):
        secret.encrypt(np.zeros(PARAMS.slots), SCALE)
    with pytest.raises(InputError, match="finite"):
        secret.encrypt(np.full((1, PARAMS.slots), np.nan), SCALE)
    with pytest.raises(InputError, match="do not fit"):
        secret.encrypt(np.full((1, PARAMS.slots), 1e9), 2.0**60)
    bad = np.full((2, 1, PARAMS.n), PARAMS.primes[0], dtype=np.uint64)
    with pytest.raises(WireError, match="not below its prime"):
        secret.decrypt(Ciphertext(residues=bad, scale=SCALE))
    deep = np.zeros((2, 3, PARAMS.n), dtype=np.uint64)
    with pytest.raises(WireError, match="level"):
        secret.decrypt(Ciphertext(residues=deep, scale=SCALE))


def test_the_secret_does_not_leak_by_accident(
    secret: SecretKeys, evaluation: EvaluationKeys
) -> None:
    assert "hidden" in repr(secret)
    assert len(repr(evaluation)) < 1000
    for leak in (lambda: pickle.dumps(secret), lambda: copy.copy(secret)):
        with pytest.raises(TypeError, match="not picklable"):
            leak()
    assert not hasattr(secret, "to_bytes")


def test_key_file_round_trip(secret: SecretKeys, tmp_path: Path) -> None:
    path = tmp_path / "keys" / "client.key"
    secret.save(path, "correct horse", cost=CHEAP)
    loaded = SecretKeys.load(path, "correct horse")
    assert loaded.params == PARAMS
    values = np.random.default_rng(2).uniform(-1, 1, (1, PARAMS.slots))
    context = seal_bytes.seal_context(PARAMS)
    ciphertext = _expanded(context, secret.encrypt(values, SCALE)[0])
    np.testing.assert_array_equal(loaded.decrypt(ciphertext), secret.decrypt(ciphertext))
    with pytest.raises(KeyFileError, match="wrong passphrase"):
        SecretKeys.load(path, "wrong horse")
