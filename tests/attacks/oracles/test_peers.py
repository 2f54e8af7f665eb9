"""Other suites ask our oracles: nothing is lost to float32, nothing escapes the ledger."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from attacks.core.oracle import softmax
from attacks.core.wrappers import Budget, LabelsOnly
from attacks.errors import DataSplitError
from attacks.oracles.art import ArtOracle, as_art_classifier
from attacks.oracles.foolbox import as_foolbox_model
from attacks.oracles.plaintext import TorchOracle
from attacks.oracles.recipes import mlp

pytest.importorskip("art", reason="ART is an extra: pip install 'he-infer[peers]'")
pytest.importorskip("foolbox", reason="Foolbox is an extra: pip install 'he-infer[peers]'")

# What these packages warn about in their own code is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def oracle() -> TorchOracle:
    torch.manual_seed(0)
    return TorchOracle(mlp(6, 5, 3), name="small", input_shape=(6,), low=0.0, high=1.0)


@pytest.fixture
def records() -> Any:
    return np.random.default_rng(0).random((300, 6))


def test_art_gets_every_digit_in_one_request(oracle: TorchOracle, records: Any) -> None:
    classifier = as_art_classifier(oracle)
    found = classifier.predict(records)
    assert found.dtype == np.float64
    expected = softmax(oracle.query(records).require_logits())
    assert (found == expected).all()
    assert oracle.ledger.spent.records == 600 and oracle.ledger.spent.requests == 2


def test_arts_own_wrapper_would_lose_them(oracle: TorchOracle, records: Any) -> None:
    from art.estimators.classification import BlackBoxClassifier

    theirs = BlackBoxClassifier(
        lambda x: softmax(oracle.query(x).require_logits()), (6,), 3, clip_values=(0.0, 1.0)
    )
    assert theirs.predict(records).dtype == np.float32


def test_an_art_attack_runs_and_pays(oracle: TorchOracle, records: Any) -> None:
    from art.attacks.evasion import HopSkipJump

    classifier = as_art_classifier(LabelsOnly(oracle))
    # ART seeds this attack from the operating system. Whatever it draws, each record costs 50
    # questions for its gradient, or the 100 after which the search for a start is given up.
    attack = HopSkipJump(
        classifier, max_iter=1, max_eval=50, init_eval=50, init_size=100, verbose=False
    )
    adversarial = attack.generate(records[:2])
    assert adversarial.shape == (2, 6)
    assert oracle.ledger.spent.records > 2 * 50


def test_art_cannot_pass_a_budget(oracle: TorchOracle, records: Any) -> None:
    classifier = as_art_classifier(Budget(oracle, records=200))
    with pytest.raises(Exception, match="200"):
        classifier.predict(records)
    assert oracle.ledger.spent.records == 0


def test_a_classifier_of_art_is_an_oracle(oracle: TorchOracle, records: Any) -> None:
    back = ArtOracle(as_art_classifier(oracle), name="back")
    answer = back.query(records)
    np.testing.assert_array_equal(answer.labels, oracle.query(records).labels)
    assert back.ledger.spent.records == 300
    with pytest.raises(DataSplitError, match="fitted ART classifier"):
        ArtOracle(object(), name="nothing")


@pytest.mark.parametrize("kind", ["numpy", "torch64", "torch32"])
def test_foolbox_gets_its_own_type_back(oracle: TorchOracle, records: Any, kind: str) -> None:
    model = as_foolbox_model(oracle)
    assert tuple(model.bounds) == (0.0, 1.0)
    expected = oracle.query(records).require_logits()
    if kind == "numpy":
        np.testing.assert_array_equal(model(records), expected)
        return
    dtype = torch.float64 if kind == "torch64" else torch.float32
    found = model(torch.as_tensor(records, dtype=dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12 if kind == "torch64" else 1e-5)


def test_a_foolbox_attack_runs_and_pays(oracle: TorchOracle, records: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import foolbox

    model = as_foolbox_model(oracle)
    labels = torch.as_tensor(oracle.query(records[:4]).labels)
    attacks: Any = foolbox.attacks
    attack = attacks.LinearSearchBlendedUniformNoiseAttack(steps=5)
    attack(model, torch.as_tensor(records[:4]), labels, epsilons=None)
    assert oracle.ledger.spent.records > 4 + 4 * 5
