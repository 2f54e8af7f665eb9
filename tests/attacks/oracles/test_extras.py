"""Without the extra packages their adapters say how to get them."""

from __future__ import annotations

import sys

import pytest
from torch import nn

from attacks.errors import AbilityError
from attacks.oracles.art import as_art_classifier
from attacks.oracles.foolbox import as_foolbox_model
from attacks.oracles.plaintext import TorchOracle


@pytest.fixture
def oracle() -> TorchOracle:
    return TorchOracle(nn.Linear(3, 2), name="m", input_shape=(3,), low=0.0, high=1.0)


def test_without_art(oracle: TorchOracle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "art.estimators.classification", None)
    with pytest.raises(AbilityError, match=r"pip install 'he-infer\[peers\]'"):
        as_art_classifier(oracle)


def test_without_foolbox(oracle: TorchOracle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "foolbox.models.base", None)
    with pytest.raises(AbilityError, match=r"pip install 'he-infer\[peers\]'"):
        as_foolbox_model(oracle)
