"""The model under audit: fitted to the data, remade from fresh weights, refused early."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from attacks.audit.bench.data import Split, load_records, split_records
from attacks.audit.bench.models import Subject, fresh_relu_model, read_subject
from attacks.audit.bench.trained import chosen_targets, shadows_of
from attacks.audit.config import config_of
from attacks.errors import AuditError, DataSplitError
from he_infer.activations.layer import PolynomialActivation

MODELS = """
import torch
from torch import nn

def plain():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

def trained():
    model = plain()
    torch.manual_seed(3)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 5.0)
    return model

class Stuck(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.arange(12.0).reshape(3, 4))

    def forward(self, x):
        return nn.functional.linear(x, self.weight)

def stuck():
    return nn.Sequential(Stuck(), nn.ReLU(), nn.Linear(3, 3))

def linear():
    return nn.Sequential(nn.Linear(4, 3))

def two():
    return nn.Linear(4, 2)

def pooled():
    return nn.Sequential(nn.Unflatten(1, (1, 4)), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(2, 3))

def wide():
    return nn.Sequential(nn.Linear(5, 3))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MODELS)
    return tmp_path


def iris() -> Split:
    name, records = load_records("iris")
    return split_records(name, records, pool=0, rng=np.random.default_rng(0))


def subject(folder: Path, factory: str) -> Subject:
    settings = {"model": f"{folder}/mine.py:{factory}", "data": "iris", "out": folder / "out"}
    return read_subject(config_of(settings | {"batch": 8}), iris())


def test_a_factory_is_remade_from_fresh_weights(folder: Path) -> None:
    found = subject(folder, "trained")
    torch.manual_seed(1)
    first = torch.nn.utils.parameters_to_vector(found.recipe.architecture().parameters())
    second = torch.nn.utils.parameters_to_vector(found.recipe.architecture().parameters())
    torch.manual_seed(1)
    again = torch.nn.utils.parameters_to_vector(found.recipe.architecture().parameters())
    # Not the factory's weights around 5, although it seeds torch: drawn from our own stream.
    assert float(first.detach().abs().max()) < 1 and torch.equal(first, again)
    assert not torch.equal(first, second)
    assert found.notes == () and found.delivered is None and found.parameters == 67


def test_parameters_that_cannot_be_drawn_anew_are_named(folder: Path) -> None:
    (note,) = subject(folder, "stuck").notes
    assert "0.weight" in note and "shadow models share them" in note


def test_a_model_without_activations_says_that_its_twins_are_one(folder: Path) -> None:
    (note,) = subject(folder, "linear").notes
    assert "no activation to replace" in note


def test_the_zoos_weights_are_set_apart() -> None:
    name, records = load_records("digits")
    split = split_records(name, records, pool=0, rng=np.random.default_rng(0))
    config = config_of({"model": "digits-mlp", "data": "digits", "out": "unused"})
    found = read_subject(config, split)
    assert found.delivered is not None and found.split.pool.shape == (64,)
    network = fresh_relu_model("digits-mlp")
    assert not any(isinstance(layer, PolynomialActivation) for layer in network.modules())


@pytest.mark.parametrize(
    ("factory", "error", "words"),
    [
        ("two", AuditError, "tells 2 classes apart, iris has 3"),
        ("wide", DataSplitError, r"none of the shapes that iris has: \(4,\)"),
        ("pooled", AuditError, "cannot be served encrypted"),
    ],
)
def test_what_cannot_be_audited_is_refused_before_training(
    folder: Path, factory: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        subject(folder, factory)


def test_a_changed_file_is_another_audit(folder: Path) -> None:
    before = subject(folder, "plain").contents
    (folder / "mine.py").write_text(MODELS + "\n# changed\n")
    assert subject(folder, "plain").contents != before


@pytest.mark.parametrize("models", [4, 6, 20])
def test_no_shadow_tells_a_targets_members(models: int) -> None:
    from attacks.training.stack import membership_masks

    masks = membership_masks(models, 100, np.random.default_rng(0))
    for target in range(models):
        shadows = shadows_of(target, models)
        assert target not in shadows and len(shadows) == models - 2
        # Every record is in half of the shadows, whether the target has it or not.
        assert (masks[shadows].sum(axis=0) == (models - 2) // 2).all()


def test_targets_come_from_different_pairs_while_they_can() -> None:
    assert chosen_targets(3, 6) == (0, 2, 4)
    assert chosen_targets(4, 6) == (0, 2, 4, 1)
