"""The registry: every backend is found by its name, and the best that can run is the default."""

from __future__ import annotations

import numpy as np
import pytest

from he_infer.errors import BackendError
from he_infer.runtime.backends import choose
from he_infer.runtime.backends.base import EncryptedBackend
from he_infer.runtime.backends.choose import ENCRYPTED, IN_THE_CLEAR, backend_class, clear_backend
from tests.runtime.backends.harness import PARAMS


def runnable() -> list[type[EncryptedBackend]]:
    return [found for found in map(backend_class, ENCRYPTED) if not found.missing()]


@pytest.mark.parametrize("name", ENCRYPTED)
def test_backends_are_registered_under_their_names(name: str) -> None:
    found = backend_class(name)
    assert found.name == name
    if found.missing():
        with pytest.raises(BackendError, match="cannot run here"):
            found(PARAMS)
    else:
        assert choose.encrypted_backend(PARAMS, name, threads=2).params == PARAMS


def test_the_first_that_can_run_is_the_default() -> None:
    assert backend_class() is runnable()[0]
    assert choose.summary().startswith(backend_class().name)


def test_a_missing_backend_is_skipped_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = runnable()
    if not others:
        pytest.skip("only one backend can run here")
    monkeypatch.setattr(first, "missing", classmethod(lambda cls: "it went for a walk"))
    assert backend_class() is others[0]
    assert choose.summary() == f"{others[0].name} (it went for a walk)"


@pytest.mark.parametrize("name", IN_THE_CLEAR)
def test_backends_without_cryptography(name: str) -> None:
    backend = clear_backend(PARAMS, name, np.random.default_rng(0), steps=(1,))
    assert backend.params == PARAMS


def test_unknown_names_are_refused_with_those_that_exist() -> None:
    with pytest.raises(BackendError, match="choose auto, native, seal"):
        backend_class("gpu")
    with pytest.raises(BackendError, match="choose plain, simulated, native, seal"):
        clear_backend(PARAMS, "gpu", np.random.default_rng(0), steps=())
